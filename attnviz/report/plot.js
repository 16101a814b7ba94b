"use strict";
// Images with axes, playhead, cursor and events.

// Draw rows x columns cells, row 0 at the bottom; `colourAt(row, column, pixels, at)` fills four bytes.
function paint(canvas, rows, columns, colourAt) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      colourAt(rows - 1 - row, column, image.data, 4 * (row * columns + column));
    }
  }
  context.putImageData(image, 0, 0);
}

const LOUDEST = 134; // grey level of the loudest sound below a map

// Opacity of attention over a spectrogram, as in the figures: `share` of the scale, `signed` about its middle.
function opacity(share, signed) {
  return Math.round(255 * 0.86 * (signed ? Math.abs(2 * share - 1) : share) ** 0.6);
}

// Set a pixel to the colour at a position (0 to 1) in a table of 256 colours.
function fill(table, share, pixels, at, alpha = 255) {
  const entry = 3 * Math.round(share * 255);
  for (let channel = 0; channel < 3; channel += 1) pixels[at + channel] = table[entry + channel];
  pixels[at + 3] = alpha;
}

class ColourBar {
  constructor() {
    this.canvas = make("canvas", { "aria-hidden": "true" });
    [this.low, this.high, this.unit] = [make("span", { class: "end" }), make("span", { class: "end" }), make("span", { class: "unit" })];
    this.element = make("p", { class: "scale" }, this.low, this.canvas, this.high, this.unit);
  }

  // With `over`, the lower half is over the grey of the loudest sound, and the upper half over white.
  show(table, low, high, unit, over = false, signed = false) {
    paint(this.canvas, over ? 2 : 1, 256, (row, column, pixels, at) => {
      fill(table, column / 255, pixels, at);
      if (!over) return;
      const alpha = opacity(column / 255, signed) / 255;
      const grey = row ? 255 : LOUDEST;
      for (let channel = 0; channel < 3; channel += 1) pixels[at + channel] = alpha * pixels[at + channel] + (1 - alpha) * grey;
    });
    this.low.textContent = low;
    this.high.textContent = high;
    this.unit.textContent = unit;
  }
}

function makePadding(axes) {
  if (axes.audioSeconds >= axes.seconds) return null;
  const element = make("div", { class: "padding", title: "beyond the audio" });
  element.style.left = percent(axes.audioSeconds / axes.seconds);
  return element;
}

function makePlayhead() {
  return make("div", { class: "playhead", "aria-hidden": "true" });
}

function makeAxisName(side, text) {
  return make("div", { class: `axis-name axis-name-${side}`, "aria-hidden": "true" }, text);
}

// Ticks of the time axis that fit into the given number of pixels.
function timeTicks(axes, width) {
  const room = Math.max(2, width / 54);
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
  const step = steps.find((one) => axes.seconds / one <= room) || 1800;
  const count = Math.floor(axes.seconds / step + 1e-9) + 1;
  return Array.from({ length: count }, (_, number) => {
    const tick = make("span", {}, String(Number((number * step).toFixed(1))));
    tick.style.left = percent((number * step) / axes.seconds);
    return tick;
  });
}

// Ticks of the frequency axis: the lowest, and those from the top that fit, as in the figures.
function hertzTicks(axes, height) {
  const ticks = [];
  let last = Infinity;
  for (const [number, { hz, at }] of [...axes.ticks.entries()].reverse()) {
    const room = 17 / height;
    if (number && (last - at < room || at - axes.ticks[0].at < room)) continue;
    last = at;
    const tick = make("span", {}, hz >= 1000 ? `${hz / 1000}k` : String(hz));
    tick.style.bottom = percent(at);
    ticks.push(tick);
  }
  return ticks;
}

// Bar or box over the time of an event.
function makeBar(event, axes, name) {
  const origin = event.heard ? "heard by the listener" : "given";
  const title = `${event.label}: ${event.onset.toFixed(2)} to ${inSeconds(event.offset)} (${origin})`;
  const element = make("div", { class: name, title });
  const [from, to] = [event.onset, event.offset].map((time) => clamp(time / axes.seconds, 0, 1));
  element.style.left = percent(from);
  element.style.width = percent(to - from);
  return element;
}

class Plot {
  // `point(plot, time, up)` on pointer movement (`up`: position on the mel axis), `leave()` when the pointer leaves,
  // `seek(time)` on a click, `key(plot, event)` on a key.
  constructor(name, axes, { point, leave, seek, key }) {
    this.axes = axes;
    this.flat = axes.flat && name === "map";
    this.beneath = make("canvas", { class: "picture", "aria-hidden": "true" });
    this.beneath.hidden = true;
    this.canvas = make("canvas", { class: "picture", "aria-hidden": "true" });
    this.marks = make("div", { class: "marks" });
    this.cursor = make("div", { class: "cursor" });
    this.tip = make("div", { class: "tip" });
    const over = (event) => point(this, ...this.place(event));
    this.area = make(
      "div",
      {
        class: `area area-${name} ${this.flat ? "area-flat" : ""}`, tabindex: "0", role: "application", "aria-roledescription": "picture",
        onpointermove: over, onpointerdown: over, onpointerleave: leave, onblur: leave,
        onclick: (event) => seek(this.place(event)[0]), onkeydown: (event) => key(this, event),
      },
      this.beneath, this.canvas, makePadding(axes), this.marks, makePlayhead(), this.cursor, this.tip,
    );
    this.vertical = make("div", { class: "axis axis-hz", "aria-hidden": "true" });
    this.horizontal = make("div", { class: "axis axis-s", "aria-hidden": "true" });
    this.element = make(
      "div", { class: "plot" }, this.flat ? null : makeAxisName("hz", "frequency (Hz)"), this.vertical, this.area, this.horizontal,
      makeAxisName("s", "time (s)"),
    );
    this.hideCursor();
  }

  describe(what) {
    const keys = "Use the arrow keys to move a cursor and read values, and Enter to move the playhead.";
    this.area.setAttribute("aria-label", `${what}. ${keys}`);
  }

  // Time and position on the mel axis of the pointer.
  place(event) {
    const box = this.area.getBoundingClientRect();
    return [
      clamp((event.clientX - box.left) / box.width, 0, 1) * this.axes.seconds,
      clamp(1 - (event.clientY - box.top) / box.height, 0, 1),
    ];
  }

  showCursor(time, up, lines) {
    const right = time / this.axes.seconds;
    for (const element of [this.cursor, this.tip]) {
      element.style.setProperty("--x", percent(right));
      element.style.setProperty("--y", percent(1 - up));
    }
    this.cursor.hidden = false;
    this.tip.hidden = lines === null;
    this.tip.classList.toggle("tip-left", right > 0.6);
    this.tip.classList.toggle("tip-above", up < 0.5);
    if (lines !== null) this.tip.replaceChildren(...lines.map((line) => make("span", {}, `${line} `)));
  }

  hideCursor() {
    this.cursor.hidden = this.tip.hidden = true;
  }

  // Events with their time and, if known, their band.
  showEvents(events) {
    const boxes = events.map((event) => {
      const box = makeBar(event, this.axes, "event");
      if (event.low !== null && event.high !== null && !this.flat) {
        box.style.bottom = percent(this.axes.position(event.low));
        box.style.top = percent(1 - this.axes.position(event.high));
      }
      return box;
    });
    this.marks.replaceChildren(...boxes);
  }

  fit() {
    const { width, height } = this.area.getBoundingClientRect();
    if (width) this.horizontal.replaceChildren(...timeTicks(this.axes, width));
    if (height && !this.flat) this.vertical.replaceChildren(...hertzTicks(this.axes, height));
  }
}
