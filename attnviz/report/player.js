"use strict";
// Audio and time: a button per clip, a common slider and clock. Without audio, the slider only moves the playhead.

class Player {
  // `clips`: { audio, name }, with audio null if there is none. `moved(time)` is called when the time changes, and
  // `failed(number)` if the browser cannot play a clip.
  constructor(clips, length, { moved, failed }) {
    Object.assign(this, { length, moved, time: 0 });
    this.clips = clips.map((clip, number) => this.load(clip, () => failed(number)));
    this.slider = make("input", {
      type: "range", min: "0", max: String(length), step: "0.01", value: "0", "aria-label": "Time in the clip",
      oninput: () => this.seek(Number(this.slider.value)),
    });
    this.clock = make("span", { class: "clock" });
    this.element = make("div", { class: "player", role: "group", "aria-label": "Player" },
      ...this.clips.map(({ element }) => element), make("div", { class: "time" }, this.slider, this.clock));
  }

  load({ audio, name }, failed) {
    const clip = { sound: null, suffix: name ? ` ${name}` : "" };
    clip.button = make("button", { type: "button", class: "play", onclick: () => this.toggle(clip) },
      make("span", { class: "icon", "aria-hidden": "true" }));
    clip.element = make("div", { class: "clip" }, clip.button, name ? make("span", { class: "clip-name", dir: "auto" }, name) : null);
    clip.element.hidden = !audio;
    this.showPlaying(clip, false);
    if (!audio) return clip;
    clip.sound = new Audio(URL.createObjectURL(new Blob([bytesOf(audio.data)], { type: audio.type })));
    clip.sound.preload = "auto";
    clip.sound.addEventListener("play", () => {
      this.showPlaying(clip, true);
      this.follow(clip);
    });
    clip.sound.addEventListener("pause", () => this.showPlaying(clip, false));
    clip.sound.addEventListener("error", () => {
      clip.button.disabled = true;
      failed();
    });
    return clip;
  }

  // Play only one clip at a time, starting at the current time.
  toggle(clip) {
    if (!clip.sound.paused) {
      clip.sound.pause();
      return;
    }
    for (const other of this.clips) if (other !== clip) other.sound?.pause();
    if (!clip.sound.ended && Math.abs(clip.sound.currentTime - this.time) > 0.02) clip.sound.currentTime = this.time;
    clip.sound.play();
  }

  showPlaying({ button, suffix }, playing) {
    button.setAttribute("aria-label", (playing ? "Pause" : "Play") + suffix);
    button.classList.toggle("playing", playing);
  }

  // On every frame, because audio events occur only four times per second.
  follow({ sound }) {
    this.show(sound.currentTime);
    if (!sound.paused) requestAnimationFrame(() => sound.paused || this.follow({ sound }));
  }

  seek(time) {
    this.show(time);
    for (const { sound } of this.clips) if (sound) sound.currentTime = this.time;
  }

  show(time) {
    this.time = clamp(time, 0, this.length);
    this.clock.textContent = `${this.time.toFixed(2)} / ${inSeconds(this.length)}`;
    this.slider.value = this.time;
    this.slider.setAttribute("aria-valuetext", `${this.time.toFixed(1)} of ${this.length.toFixed(1)} seconds`);
    this.moved(this.time);
  }
}
