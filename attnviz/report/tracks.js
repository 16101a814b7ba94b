"use strict";
// When each word was attended to: one row per word over the events, on the time axis of the images.

class Tracks {
  // `choose(item)` and `seek(time)` when a row is clicked.
  constructor(maps, axes, events, handlers) {
    Object.assign(this, { maps, axes, handlers });
    this.rows = maps.items.map(({ label }, item) => this.makeRow(label, item));
    this.said = makeSaid();
    this.axis = make("div", { class: "axis axis-s", "aria-hidden": "true" });
    const others = this.placeEvents(events || []);
    // Only for sight and mouse: the buttons of the prompt make the same selection, and a table has the numbers.
    const rows = make("div", { class: `tracks ${this.rows.length > 24 ? "dense" : ""}`, "aria-hidden": "true" },
      ...[...this.rows, ...others].map(({ element }) => element));
    const swatch = events?.length ? make("span", { class: "swatch", "aria-hidden": "true" }) : null;
    this.element = makeSection("When each word was attended to", rows,
      make("div", { class: "tracks-axis" }, this.axis, makeAxisName("s", "time (s)")),
      this.said, makeSaid(swatch, eventsText(events)));
  }

  makeRow(label, item) {
    const namespace = "http://www.w3.org/2000/svg";
    const [svg, path] = ["svg", "path"].map((name) => document.createElementNS(namespace, name));
    svg.setAttribute("viewBox", "0 0 1 1");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(path);
    const bars = make("div", { class: "bars" });
    const lane = make("div", { class: "lane" }, svg, bars, makePadding(this.axes), makePlayhead());
    const name = make("span", { class: "track-name", dir: "auto", title: label }, label);
    const element = make("div", { class: "track", onclick: (event) => this.clicked(event, item, lane) }, name, lane);
    return { element, path, bars };
  }

  clicked(event, item, lane) {
    if (item !== null) this.handlers.choose(item);
    const { left, width } = lane.getBoundingClientRect();
    if (event.clientX >= left) this.handlers.seek(((event.clientX - left) / width) * this.axes.seconds);
  }

  // Draw events in the rows of the words that name them, and return separate rows for the others.
  placeEvents(events) {
    const others = new Map();
    for (const event of events) {
      for (const item of event.items) this.rows[item].bars.append(makeBar(event, this.axes, "bar"));
      if (event.items.length) continue;
      if (!others.has(event.label)) others.set(event.label, this.makeRow(event.label, null));
      others.get(event.label).bars.append(makeBar(event, this.axes, "bar"));
    }
    for (const { element } of others.values()) element.classList.add("other");
    return [...others.values()];
  }

  draw() {
    const { maps } = this;
    this.rows.forEach(({ element, path }, item) => {
      const { curve } = maps.measures[item];
      const range = maps.rangeOf(item);
      const heightOf = (value) => 1 - 0.94 * shareOf(value, range);
      const foot = range[0] < 0 ? heightOf(0) : 1; // with negative attention, 0 is in the middle
      const width = 1 / maps.current.columns;
      const line = curve.map((value, at) => `L${at * width} ${heightOf(value)}L${(at + 1) * width} ${heightOf(value)}`);
      path.setAttribute("d", curve.length ? `M0 ${foot}${line.join("")}L${curve.length * width} ${foot}Z` : "");
      element.classList.toggle("chosen", item === maps.item);
    });
    const [low, high] = maps.rangeOf(0);
    const special = maps.items.every((_, item) => maps.isText(item)) ? "" : "; special tokens to their own maximum";
    this.said.textContent = maps.choice.own
      ? "Each row ranges from its own minimum to its own maximum."
      : `Rows of words range from ${maps.shown(low)} to ${maps.shown(high)}${this.axes.flat ? "" : " (mean over frequency)"}${special}.`;
  }

  fit() {
    const { width } = this.axis.getBoundingClientRect();
    if (width) this.axis.replaceChildren(...timeTicks(this.axes, width));
  }
}

function eventsText(events) {
  if (!events) return "This run has no events.tsv, so there are no events to compare with.";
  if (!events.length) return "No event of non-zero length.";
  const parts = [["Given events", false], ["Heard by the listener", true]].flatMap(([name, heard]) => {
    const own = events.filter((event) => event.heard === heard);
    const list = own.map(({ label, onset, offset }) => `${label} ${onset.toFixed(2)} to ${inSeconds(offset)}`);
    const more = list.length > 12 ? `, and ${list.length - 12} more` : "";
    return own.length ? [`${name}: ${list.slice(0, 12).join(", ")}${more}.`] : [];
  });
  const apart = events.some(({ items }) => !items.length);
  return [...parts, ...(apart ? ["Events that no word names have separate rows."] : [])].join(" ");
}
