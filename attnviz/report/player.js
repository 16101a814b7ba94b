"use strict";
// Sound and time: a button, a slider and a clock. Without audio the slider moves the playhead alone.

class Player {
  // `moved(time)` is called whenever the time is another; `failed()` where the browser cannot play the audio.
  constructor(audio, length, { moved, failed }) {
    Object.assign(this, { length, moved, time: 0, sound: null });
    this.button = make("button", { type: "button", class: "play", "aria-label": "Play", onclick: () => this.toggle() },
      make("span", { class: "icon", "aria-hidden": "true" }));
    this.button.hidden = !audio;
    this.slider = make("input", {
      type: "range", min: "0", max: String(length), step: "0.01", value: "0", "aria-label": "Time in the clip",
      oninput: () => this.seek(Number(this.slider.value)),
    });
    this.clock = make("span", { class: "clock" });
    this.element = make("div", { class: "player", role: "group", "aria-label": "Player" }, this.button, this.slider, this.clock);
    if (audio) this.load(audio, failed);
  }

  load({ data, type }, failed) {
    this.sound = new Audio(URL.createObjectURL(new Blob([bytesOf(data)], { type })));
    this.sound.preload = "auto";
    this.sound.addEventListener("play", () => {
      this.showPlaying(true);
      this.follow();
    });
    this.sound.addEventListener("pause", () => this.showPlaying(false));
    this.sound.addEventListener("error", () => {
      this.button.disabled = true;
      failed();
    });
  }

  toggle() {
    if (this.sound.paused) this.sound.play();
    else this.sound.pause();
  }

  showPlaying(playing) {
    this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.button.classList.toggle("playing", playing);
  }

  // Every frame: the audio's own events come four times a second only.
  follow() {
    this.show(this.sound.currentTime);
    if (!this.sound.paused) requestAnimationFrame(() => this.follow());
  }

  seek(time) {
    this.show(time);
    if (this.sound) this.sound.currentTime = this.time;
  }

  show(time) {
    this.time = clamp(time, 0, this.length);
    this.clock.textContent = `${this.time.toFixed(2)} / ${inSeconds(this.length)}`;
    this.slider.value = this.time;
    this.slider.setAttribute("aria-valuetext", `${this.time.toFixed(1)} of ${this.length.toFixed(1)} seconds`);
    this.moved(this.time);
  }
}
