"use strict";
// Decode axes, spectrogram and maps from the payload.

class Axes {
  // `flat`: the maps have no frequency axis; the axis is that of the spectrogram, and empty without one.
  constructor({ seconds, audio_seconds: audioSeconds, flat, fmin, fmax, hertz, ticks }) {
    Object.assign(this, { seconds, audioSeconds, flat, fmin, fmax, centres: hertz, ticks });
  }

  // Frequency at a position (0 to 1) of the mel axis, interpolated between band centres and to the ends.
  frequency(share) {
    const { centres, fmin, fmax } = this;
    const at = share * centres.length - 0.5;
    if (at <= 0) return fmin + (centres[0] - fmin) * share * 2 * centres.length;
    if (at >= centres.length - 1) return fmax - (fmax - centres.at(-1)) * (1 - share) * 2 * centres.length;
    const below = Math.floor(at);
    return centres[below] + (centres[below + 1] - centres[below]) * (at - below);
  }

  // Position of a frequency on the mel axis: the inverse of `frequency`, by bisection.
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

  // Natural-log magnitude; null where the value is not finite. Row 0 is the lowest frequency.
  value(row, column) {
    const byte = this.bytes[row * this.columns + column];
    return byte === 0 ? null : this.low + ((byte - 1) / this.levels) * (this.high - this.low);
  }

  textAt(time, up) {
    const { row, column } = this.axes.cell(time, up, this);
    const value = this.value(row, column);
    return `log-mel ${value === null ? "not finite" : `${inDecibels(value)} dB`}`;
  }
}

// All maps of a run, and the selection: `item` (null for none) and the page's `choice` of readout, step and colours.
// `others` are the maps that share the colour scale.
class Maps {
  constructor({ items, readouts, views, levels }, axes, choice) {
    Object.assign(this, { items, readouts, views, levels, axes, choice, item: 0, others: [] });
    this.bytes = new Map(readouts.map((readout) => [readout, bytesOf(readout.data)]));
    this.measured = new Map();
  }

  get current() {
    return this.readouts.find(({ name }) => name === this.choice.readout);
  }

  // View closest to the position of the slider; runs may have different numbers of steps.
  get viewShown() {
    const { step, steps } = this.choice;
    if (!this.current.stepped || step === 0) return 0;
    return 1 + Math.round(((step - 1) / Math.max(1, steps - 1)) * (this.views.length - 2));
  }

  get viewLabel() {
    return this.views[this.viewShown].label;
  }

  get label() {
    return this.item === null ? "" : this.items[this.item].label;
  }

  isText(item) {
    return ["word", "phrase"].includes(this.items[item].kind);
  }

  // Return a function for the value of a cell of a map; row 0 is the lowest frequency.
  reader(item) {
    const { rows, columns, low, high } = this.current;
    const number = this.viewShown * this.items.length + item;
    const step = (high[number] - low[number]) / this.levels;
    const bytes = this.bytes.get(this.current);
    const start = number * rows * columns;
    return (row, column) => low[number] + (bytes[start + row * columns + column] - 1) * step;
  }

  // Measures of every map of the current readout and step; see `measure`.
  get measures() {
    const key = `${this.choice.readout} ${this.viewShown}`;
    if (!this.measured.has(key)) this.measured.set(key, this.items.map((_, item) => this.measure(item)));
    return this.measured.get(key);
  }

  // Activation over time, mean, minimum, maximum and position of the maximum, without padding.
  measure(item) {
    const { rows, heard } = this.current;
    const value = this.reader(item);
    const found = { curve: [], mean: 0, low: Infinity, high: -Infinity, peak: 0, row: 0, column: 0 };
    for (let column = 0; column < heard; column += 1) {
      let sum = 0;
      for (let row = 0; row < rows; row += 1) {
        const one = value(row, column);
        sum += one;
        found.low = Math.min(found.low, one);
        found.high = Math.max(found.high, one);
        if (Math.abs(one) > Math.abs(found.peak)) Object.assign(found, { peak: one, row, column });
      }
      found.curve.push(sum / rows);
    }
    if (!heard) return { ...found, low: 0, high: 0 };
    found.mean = found.curve.reduce((sum, one) => sum + one, 0) / heard;
    return found;
  }

  // Measures of words and phrases of all maps that share the colour scale.
  get shared() {
    return [this, ...this.others].flatMap((maps) => maps.measures.filter((_, item) => maps.isText(item)));
  }

  // Limits of the colour scale. Shared: from 0 to the maximum over words; special tokens, which take most of the
  // attention, have their own maximum. With negative values, the scale is symmetric about 0.
  get scale() {
    if (this.item === null) return [0, 1];
    const own = this.measures[this.item];
    if (this.choice.own && own.low >= 0) return [own.low, own.high];
    return about0(this.choice.own || !this.isText(this.item) ? [own] : this.shared);
  }

  // Limits of the curve of an item, by the same rule.
  rangeOf(item) {
    const curveOf = ({ curve }) => ({ low: Math.min(0, ...curve), high: Math.max(0, ...curve) });
    const { curve } = this.measures[item];
    if (this.choice.own && Math.min(...curve) >= 0) return [Math.min(...curve), Math.max(...curve)];
    return about0((this.choice.own || !this.isText(item) ? [this.measures[item]] : this.shared).map(curveOf));
  }

  timeOf(column) {
    return ((column + 0.5) / this.current.columns) * this.axes.seconds;
  }

  hertzOf(row) {
    return this.axes.frequency((row + 0.5) / this.current.rows);
  }

  // A value in percent if it is a probability or a share, and as a number otherwise.
  shown(value) {
    return this.current.percent ? asShare(value) : rounded(value, 3);
  }

  textAt(time, up) {
    if (this.item === null) return "no counterpart here";
    const { row, column } = this.axes.cell(time, up, this.current);
    const beyond = time > this.axes.audioSeconds ? " (padding)" : "";
    return `“${this.label}”: ${this.shown(this.reader(this.item)(row, column))} ${this.current.quantity}${beyond}`;
  }

  get peakText() {
    if (this.item === null) return "No word of this prompt corresponds to the word selected in the other.";
    const one = this.measures[this.item];
    if (!one.curve.length) return "No column of this map is within the audio.";
    const height = this.axes.flat ? "" : `, ${inHertz(this.hertzOf(one.row))}`;
    const where = `${inSeconds(this.timeOf(one.column))}${height}`;
    return `Strongest at ${where}: ${this.shown(one.peak)}. Mean ${this.shown(one.mean)}.`;
  }
}

function about0(measures) {
  const low = Math.min(0, ...measures.map((one) => one.low));
  const high = Math.max(0, ...measures.map((one) => one.high));
  return low < 0 ? [-Math.max(-low, high), Math.max(-low, high)] : [0, high];
}

function shareOf(value, [low, high]) {
  return high > low ? clamp((value - low) / (high - low), 0, 1) : 0;
}
