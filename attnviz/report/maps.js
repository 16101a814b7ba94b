"use strict";
// The numbers: axes, spectrogram and maps as the payload holds them, read back by their scales.

class Axes {
  constructor({ seconds, audio_seconds: audioSeconds, fmin, fmax, hertz, ticks }) {
    Object.assign(this, { seconds, audioSeconds, fmin, fmax, centres: hertz, ticks });
  }

  // Frequency at a share of the mel axis: between centres of equal shares, and from the outer ones to the ends.
  frequency(share) {
    const { centres, fmin, fmax } = this;
    const at = share * centres.length - 0.5;
    if (at <= 0) return fmin + (centres[0] - fmin) * share * 2 * centres.length;
    if (at >= centres.length - 1) return fmax - (fmax - centres.at(-1)) * (1 - share) * 2 * centres.length;
    const below = Math.floor(at);
    return centres[below] + (centres[below + 1] - centres[below]) * (at - below);
  }

  // The share of the mel axis at which a frequency stands: `frequency` turned around by halving.
  position(hertz) {
    let [low, high] = [0, 1];
    for (let turn = 0; turn < 30; turn += 1) {
      const middle = (low + high) / 2;
      if (this.frequency(middle) < hertz) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  cell(time, up, { rows, columns }) {
    return {
      row: clamp(Math.floor(up * rows), 0, rows - 1),
      column: clamp(Math.floor((time / this.seconds) * columns), 0, columns - 1),
    };
  }
}

class Spectrogram {
  constructor({ rows, columns, low, high, data }, levels, axes) {
    Object.assign(this, { rows, columns, low, high, levels, axes, bytes: bytesOf(data) });
  }

  // From 0 to 1 on its scale; null where the value is not finite. Row 0 is the lowest frequency.
  level(row, column) {
    const byte = this.bytes[row * this.columns + column];
    return byte === 0 ? null : (byte - 1) / this.levels;
  }

  textAt(time, up) {
    const { row, column } = this.axes.cell(time, up, this);
    const level = this.level(row, column);
    return `log-mel ${level === null ? "not finite" : (this.low + level * (this.high - this.low)).toFixed(2)}`;
  }
}

// All maps, and which of them is shown: `item` (a word), `readout`, `view` (a step, 0 the average), `own` colours.
class Maps {
  constructor({ items, readouts, views, levels }, axes) {
    Object.assign(this, { items, readouts, views, levels, axes, item: 0, readout: 0, view: 0, own: false });
    this.bytes = readouts.map((readout) => bytesOf(readout.data));
    this.measured = new Map();
  }

  get current() {
    return this.readouts[this.readout];
  }

  get viewShown() {
    return this.current.stepped ? this.view : 0;
  }

  get viewLabel() {
    return this.views[this.viewShown].label;
  }

  get label() {
    return this.items[this.item].label;
  }

  // A function that gives the value of a cell of one map; row 0 is the lowest frequency.
  reader(item) {
    const { rows, columns, low, high } = this.current;
    const number = this.viewShown * this.items.length + item;
    const step = (high[number] - low[number]) / this.levels;
    const bytes = this.bytes[this.readout];
    const start = number * rows * columns;
    return (row, column) => low[number] + (bytes[start + row * columns + column] - 1) * step;
  }

  // Of every map of the readout and step shown: see `measure`.
  get measures() {
    const key = `${this.readout} ${this.viewShown}`;
    if (!this.measured.has(key)) this.measured.set(key, this.items.map((_, item) => this.measure(item)));
    return this.measured.get(key);
  }

  // Activation over time, mean, lowest and highest value, and where that is; padding takes no part.
  measure(item) {
    const { rows, heard } = this.current;
    const value = this.reader(item);
    const found = { curve: [], mean: 0, low: Infinity, high: -Infinity, row: 0, column: 0 };
    for (let column = 0; column < heard; column += 1) {
      let sum = 0;
      for (let row = 0; row < rows; row += 1) {
        const one = value(row, column);
        sum += one;
        found.low = Math.min(found.low, one);
        if (one > found.high) Object.assign(found, { high: one, row, column });
      }
      found.curve.push(sum / rows);
    }
    if (!heard) return { ...found, low: 0, high: 0 };
    found.mean = found.curve.reduce((sum, one) => sum + one, 0) / heard;
    return found;
  }

  ofWords(measures) {
    return measures.filter((_, item) => this.items[item].kind === "word");
  }

  // Ends of the colours: from 0 to the highest value of any word, or the shown map's own lowest and highest.
  get scale() {
    const { low, high } = this.measures[this.item];
    return this.own ? [low, high] : [0, Math.max(...this.ofWords(this.measures).map((one) => one.high))];
  }

  timeOf(column) {
    return ((column + 0.5) / this.current.columns) * this.axes.seconds;
  }

  hertzOf(row) {
    return this.axes.frequency((row + 0.5) / this.current.rows);
  }

  textAt(time, up) {
    const { row, column } = this.axes.cell(time, up, this.current);
    const beyond = time > this.axes.audioSeconds ? " (padding)" : "";
    return `“${this.label}”: ${short(this.reader(this.item)(row, column))} ${this.current.quantity}${beyond}`;
  }

  get peakText() {
    const peak = this.measures[this.item];
    if (!peak.curve.length) return "No column of this map lies within the audio.";
    const where = `${inSeconds(this.timeOf(peak.column))}, ${inHertz(this.hertzOf(peak.row))}`;
    return `Strongest at ${where} (${short(peak.high)}); mean ${short(peak.mean)}.`;
  }
}

function shareOf(value, [low, high]) {
  return high > low ? clamp((value - low) / (high - low), 0, 1) : 0;
}
