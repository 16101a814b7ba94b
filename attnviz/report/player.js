"use strict";
// Audio and time: a button per clip and per solo, a common slider and clock. Without audio, the slider only moves the playhead.

class Player {
  // `clips`: { audio, solos, name }, with audio null if there is none. `moved(time)` is called when the time changes, and
  // `failed(number)` if the browser cannot play a clip.
  constructor(clips, length, { moved, failed }) {
    Object.assign(this, { length, moved, time: 0 });
    this.clips = clips.map((clip, number) => this.load(clip, () => failed(number)));
    this.slider = make("input", {
      type: "range", min: "0", max: String(length), step: "0.01", value: "0", "aria-label": "Time in the clip",
      oninput: () => this.seek(Number(this.slider.value)),
    });
    this.clock = make("span", { class: "clock" });
    const solos = this.clips.filter(({ solos: own }) => own.length).map(({ row }) => row);
    this.element = make("div", { class: "player", role: "group", "aria-label": "Player" },
      ...this.clips.map(({ element }) => element), make("div", { class: "time" }, this.slider, this.clock), ...solos);
  }

  load({ audio, solos, name }, failed) {
    const clip = { sound: null, whole: null, solos: [], suffix: name ? ` ${name}` : "" };
    clip.button = make("button", { type: "button", class: "play", onclick: () => this.toggle(clip) },
      make("span", { class: "icon", "aria-hidden": "true" }));
    clip.element = make("div", { class: "clip" }, clip.button, name ? make("span", { class: "clip-name", dir: "auto" }, name) : null);
    clip.element.hidden = !audio;
    if (audio) {
      clip.whole = this.makeSound(clip, audio, failed);
      clip.sound = clip.whole;
      clip.solos = solos.map((solo) => this.makeSolo(clip, solo, failed));
    }
    clip.row = make("div", { class: "solos", role: "group", "aria-label": `Solos${clip.suffix}` },
      make("span", { class: "solos-name", dir: "auto" }, `Solo${clip.suffix}`), ...clip.solos.map(({ button }) => button));
    this.showPlaying(clip);
    return clip;
  }

  makeSound(clip, { type, data }, failed) {
    const sound = new Audio(URL.createObjectURL(new Blob([bytesOf(data)], { type })));
    sound.preload = "auto";
    sound.addEventListener("play", () => {
      this.showPlaying(clip);
      this.follow(clip, sound);
    });
    sound.addEventListener("pause", () => this.showPlaying(clip));
    sound.addEventListener("error", () => {
      clip.button.disabled = true;
      failed();
    });
    return sound;
  }

  makeSolo(clip, { label, audio }, failed) {
    const solo = { sound: this.makeSound(clip, audio, failed) };
    solo.button = make("button", {
      type: "button", class: "toggle solo", dir: "auto", "aria-pressed": "false",
      "aria-label": `Solo: ${label}${clip.suffix}`, title: "Hear only this phrase: the clip, filtered by the phrase's map", onclick: () => this.alone(clip, solo),
    }, label);
    return solo;
  }

  // Play a solo from the current time, or return to the whole clip at the current time.
  alone(clip, solo) {
    const on = clip.sound !== solo.sound;
    const playing = !clip.sound.paused;
    if (playing) this.time = clip.sound.currentTime;
    clip.sound.pause();
    clip.sound = on ? solo.sound : clip.whole;
    for (const one of clip.solos) one.button.setAttribute("aria-pressed", String(one.sound === clip.sound));
    if (on || playing) this.start(clip);
  }

  toggle(clip) {
    if (clip.sound.paused) this.start(clip);
    else clip.sound.pause();
  }

  // Play only one clip at a time, starting at the current time.
  start(clip) {
    for (const other of this.clips) if (other !== clip) other.sound?.pause();
    if (!clip.sound.ended && Math.abs(clip.sound.currentTime - this.time) > 0.02) clip.sound.currentTime = this.time;
    clip.sound.play();
  }

  showPlaying({ button, sound, suffix }) {
    const playing = sound !== null && !sound.paused;
    button.setAttribute("aria-label", (playing ? "Pause" : "Play") + suffix);
    button.classList.toggle("playing", playing);
  }

  // On every frame, because audio events occur only four times per second.
  follow(clip, sound) {
    if (clip.sound !== sound) return;
    this.show(sound.currentTime);
    if (!sound.paused) requestAnimationFrame(() => sound.paused || this.follow(clip, sound));
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
