"use strict";
// One run: its prompt, spectrogram, maps, curves and tables.

class Panel {
  // `unlike` says if the scores of two runs cannot be compared. `choose(item, focus)` when a word is clicked; `point`, `leave` and `key` as `Plot`; `seek(time)`.
  constructor(run, choice, colours, unlike, { choose, point, leave, seek, key }) {
    Object.assign(this, { run, choice, colours, unlike, choose });
    this.axes = new Axes(run.axes);
    this.maps = new Maps(run, this.axes, choice);
    this.spectrogram = run.spectrogram && new Spectrogram(run.spectrogram, run.levels, this.axes);
    const handlers = {
      point: (plot, time, up) => point(this, plot, time, up), leave, seek, key: (plot, event) => key(this, plot, event),
    };
    this.plots = { map: new Plot("map", this.axes, handlers) };
    if (this.spectrogram) this.plots.spectrogram = new Plot("spectrogram", this.axes, handlers);
    this.tracks = new Tracks(this.maps, this.axes, run.events, { choose, seek });
    this.mapBar = new ColourBar();
    this.soundBar = new ColourBar();
    this.title = make("span", { class: "shown", dir: "auto" });
    this.caption = make("p", { class: "said caption" });
    this.notices = make("ul", { class: "notices" }, ...run.notices.map((text) => make("li", { dir: "auto" }, text)));
    this.notices.hidden = !run.notices.length;
    this.numbers = make("div");
    this.words = [];
    this.head = this.makeHead();
    this.sections = this.makeSections();
  }

  notice(text) {
    this.notices.append(make("li", {}, text));
    this.notices.hidden = false;
  }

  // ---- parts -------------------------------------------------------------------------------------------------

  makeButton(item, text) {
    const { label } = this.run.items[item];
    const button = make("button", {
      type: "button", class: "word", "aria-pressed": "false", "aria-label": label, onclick: () => this.choose(item),
    }, text);
    this.words.push({ item, button });
    return button;
  }

  makeHead() {
    const { run } = this;
    const pieces = run.pieces.map(({ text, item }) => (
      item === null ? make("span", { class: "unmapped" }, text) : this.makeButton(item, text)));
    const chips = run.items.flatMap(({ label, kind }, item) => (kind === "word" ? [] : [this.makeButton(item, label)]));
    return make("header", {},
      run.name ? make("p", { class: "run-name", dir: "auto" }, run.name) : null,
      make("div", {
        role: "toolbar", "aria-label": "Words of the prompt; use the arrow keys to move between words", onkeydown: (event) => this.walk(event),
      },
      make("div", { class: `prompt ${run.prompt.length > 160 ? "prompt-long" : ""}`, dir: "auto" }, ...pieces),
      chips.length ? make("div", { class: "chips" }, ...chips) : null),
      this.notices);
  }

  makeSections() {
    const { axes, run } = this;
    const hatched = axes.audioSeconds < axes.seconds ? [makeSaid(`Hatched: after the end of the audio at ${inSeconds(axes.audioSeconds)}.`)] : [];
    const { spectrogram } = this.plots;
    return [
      make("section", { class: "section map-section", "aria-label": "Map of the selected word" },
        make("div", { class: "heading" }, make("h2", {}, "Attention to ", this.title), this.mapBar.element),
        this.plots.map.element, this.caption),
      make("section", { class: "section", "aria-label": "Spectrogram" },
        make("div", { class: "heading" }, make("h2", {}, "Spectrogram"), spectrogram ? this.soundBar.element : null),
        spectrogram ? spectrogram.element : makeSaid("There is no spectrogram to show."), ...hatched,
        ...(spectrogram && axes.flat ? [makeSaid("Of the audio at 16 kHz. The model itself has no frequency axis.")] : [])),
      this.tracks.element,
      scoreSection(run.scores, this.unlike),
      makeFold("Words in numbers", this.numbers),
      recordFold(run.record),
    ];
  }

  // ---- actions --------------------------------------------------------------------------------------------------

  walk(event) {
    const at = this.words.findIndex(({ item }) => item === this.maps.item);
    const goals = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: this.words.length - 1,
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    this.choose(this.words[(goals[event.key] + this.words.length) % this.words.length].item, true);
  }

  // Show an item, or none.
  take(item, focus) {
    this.maps.item = item;
    for (const { item: own, button } of this.words) {
      button.setAttribute("aria-pressed", String(own === item));
      button.tabIndex = own === (item ?? 0) ? 0 : -1;
      if (own === item && focus) button.focus({ preventScroll: true });
    }
  }

  get said() {
    return `Map of ${this.maps.label}. ${this.maps.current.label}, ${this.maps.viewLabel}. ${this.maps.peakText}`;
  }

  showCursor(time, up, plotWithTip) {
    const height = this.axes.flat && (!this.spectrogram || plotWithTip === this.plots.map) ? "" : `, ${inHertz(this.axes.frequency(up))}`;
    const lines = [`${inSeconds(time)}${height}`, this.maps.textAt(time, up)];
    if (this.spectrogram && (height || !this.axes.flat)) lines.push(this.spectrogram.textAt(time, up));
    for (const plot of Object.values(this.plots)) plot.showCursor(time, up, plot === plotWithTip ? lines : null);
  }

  hideCursor() {
    for (const plot of Object.values(this.plots)) plot.hideCursor();
  }

  movePlayhead(time) {
    const left = percent(Math.min(time / this.axes.seconds, 1));
    for (const section of this.sections) {
      for (const line of section.querySelectorAll(".playhead")) line.style.left = left;
    }
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  paintMap() {
    const { maps, choice, colours, plots: { map } } = this;
    const { rows, columns } = maps.current;
    const range = maps.scale;
    const signed = range[0] < 0;
    const table = signed ? colours.signed : colours.map;
    map.beneath.hidden = !choice.over || !this.spectrogram || map.flat;
    map.canvas.hidden = maps.item === null;
    if (maps.item === null) return;
    const value = maps.reader(maps.item);
    paint(map.canvas, rows, columns, (row, column, pixels, at) => {
      const share = shareOf(value(row, column), range);
      fill(table, share, pixels, at, map.beneath.hidden ? 255 : opacity(share, signed));
    });
    const alone = !choice.own && !maps.isText(maps.item) ? ", on its own scale" : "";
    const over = !map.beneath.hidden;
    const halves = over ? " (upper half: over silence, lower half: over the loudest sound)" : "";
    this.mapBar.show(table, maps.shown(range[0]), maps.shown(range[1]), maps.current.quantity + alone + halves, over, signed);
  }

  // Use a scale from `low` to `high`, which two runs share.
  paintSpectrogram(low, high) {
    if (!this.spectrogram) return;
    const { rows, columns } = this.spectrogram;
    const draw = (canvas, colour) => paint(canvas, rows, columns, (row, column, pixels, at) => {
      const value = this.spectrogram.value(row, column);
      if (value !== null) colour(shareOf(value, [low, high]), pixels, at);
    });
    draw(this.plots.spectrogram.canvas, (share, pixels, at) => fill(this.colours.spectrogram, share, pixels, at));
    draw(this.plots.map.beneath, (share, pixels, at) => {
      pixels.fill(Math.round(255 - (255 - LOUDEST) * share), at, at + 3);
      pixels[at + 3] = 255;
    });
    this.plots.spectrogram.describe("Spectrogram");
    this.soundBar.show(this.colours.spectrogram, String(inDecibels(low)), String(inDecibels(high)), "log-mel magnitude (dB)");
  }

  draw() {
    const { maps, run } = this;
    this.paintMap();
    this.title.textContent = maps.item === null ? "no counterpart" : `“${maps.label}”`;
    // Of two runs, each names its own steps.
    this.caption.textContent = run.name ? `Shown: ${maps.viewLabel}. ${maps.peakText}` : maps.peakText;
    this.plots.map.describe(`Map of ${maps.label}`);
    this.tracks.draw();
    const named = (run.events || []).filter((event) => event.items.includes(maps.item));
    for (const plot of Object.values(this.plots)) plot.showEvents(named);
    this.numbers.replaceChildren(wordTable(maps), ...(run.segments.length ? [segmentTable(run.segments)] : []));
  }

  fit() {
    for (const part of [...Object.values(this.plots), this.tracks]) part.fit();
  }
}
