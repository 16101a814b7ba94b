"use strict";
// The report: put together from the payload into `root`, a page's or a notebook's.

function attnvizReport(root, payload) {
  const { items, readouts, views } = payload;
  const colours = { map: bytesOf(payload.colours.map), spectrogram: bytesOf(payload.colours.spectrogram) };
  const axes = new Axes(payload.axes);
  const maps = new Maps(payload, axes);
  const spectrogram = payload.spectrogram && new Spectrogram(payload.spectrogram, payload.levels, axes);
  let place = null; // of the cursor: [time, up]

  // ---- parts ---------------------------------------------------------------------------------------------

  const live = make("p", { class: "hidden", role: "status", "aria-live": "polite" });
  const notices = make("ul", { class: "notices" }, ...payload.notices.map((text) => make("li", { dir: "auto" }, text)));
  const player = new Player(payload.audio, payload.audio ? payload.audio.seconds : axes.audioSeconds, {
    moved: (time) => {
      const left = percent(Math.min(time / axes.seconds, 1));
      for (const line of root.querySelectorAll(".playhead")) line.style.left = left;
    },
    failed: () => {
      notices.append(make("li", {}, "This browser cannot play the audio (WAV) inside this file."));
      notices.hidden = false;
    },
  });
  const seek = (time) => player.seek(time);
  const handlers = { point, leave, seek, key };
  const plots = { map: new Plot("map", axes, handlers) };
  if (spectrogram) plots.spectrogram = new Plot("spectrogram", axes, handlers);
  const tracks = new Tracks(maps, axes, payload.events, { choose, seek });
  const mapBar = new ColourBar(colours.map);
  const title = make("span", { class: "shown", dir: "auto" });
  const caption = make("p", { class: "said caption" });
  const scaleSaid = make("span");
  const numbers = make("div");

  const words = [];
  const wordButton = (item, text) => {
    const button = make("button", {
      type: "button", class: "word", "aria-pressed": "false", "aria-label": items[item].label, onclick: () => choose(item),
    }, text);
    words.push({ item, button });
    return button;
  };
  const pieces = payload.pieces.map(({ text, item }) => (item === null ? make("span", { class: "unmapped" }, text) : wordButton(item, text)));
  const special = items.flatMap(({ label, kind }, item) => (kind === "word" ? [] : [wordButton(item, label)]));
  const prompt = make("div", {
    class: `prompt ${payload.prompt.length > 160 ? "prompt-long" : ""}`, dir: "auto", role: "toolbar",
    "aria-label": "Words of the prompt: arrow keys go from word to word", onkeydown: walk,
  }, ...pieces, special.length ? make("span", { class: "special" }, ...special) : null);

  // ---- controls -------------------------------------------------------------------------------------------

  const option = (value, label) => make("option", { value }, label);
  const group = (label, layer) => make("optgroup", { label },
    ...readouts.flatMap((one, at) => (one.layer === layer ? [option(at, one.label)] : [])));
  const set = (name, value) => {
    maps[name] = value;
    draw();
  };
  const stepSaid = make("span", { class: "step-said" });
  const step = make("input", {
    type: "range", min: "0", max: String(views.length - 1), step: "1", value: "0",
    "aria-label": "Denoising step; at 0 the average of all", oninput: () => set("view", Number(step.value)),
  });
  const stepped = views.length > 1;
  const overlay = make("button", { type: "button", class: "toggle", "aria-pressed": "false", onclick: () => {
    overlay.setAttribute("aria-pressed", String(plots.map.beneath.hidden));
    plots.map.beneath.hidden = !plots.map.beneath.hidden;
    paintMap();
  } }, "Over the spectrogram");
  overlay.hidden = !spectrogram;
  const controls = make("div", { class: "controls" },
    makeChoice("Readout", [group("all layers", false), group("one layer", true)], (value) => set("readout", value)),
    make("label", { class: "choice steps" }, make("span", {}, "Denoising"), stepped ? step : null, stepSaid),
    makeChoice("Colours", [option(0, "shared by all words"), option(1, "this map's own range")], (value) => set("own", value === 1)),
    overlay);

  // ---- what happens -----------------------------------------------------------------------------------------

  function choose(item, focus = false) {
    maps.item = item;
    for (const { item: own, button } of words) {
      button.setAttribute("aria-pressed", String(own === item));
      button.tabIndex = own === item ? 0 : -1;
      if (own === item && focus) button.focus();
    }
    draw();
    live.textContent = `Map of ${maps.label}. ${maps.current.label}, ${maps.viewLabel}. ${maps.peakText}`;
  }

  function walk(event) {
    const at = words.findIndex(({ item }) => item === maps.item);
    const goals = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: words.length - 1,
    };
    if (!(event.key in goals)) return;
    event.preventDefault();
    choose(words[(goals[event.key] + words.length) % words.length].item, true);
  }

  function point(plot, time, up) {
    place = [time, up];
    const lines = [`${inSeconds(time)}, ${inHertz(axes.frequency(up))}`, maps.textAt(time, up)];
    if (spectrogram) lines.push(spectrogram.textAt(time, up));
    for (const one of Object.values(plots)) one.showCursor(time, up, one === plot ? lines : null);
  }

  function leave() {
    place = null;
    for (const plot of Object.values(plots)) plot.hideCursor();
  }

  // The cursor by keyboard, cell by cell of the map.
  function key(plot, event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [time, up] = place || [player.time, 0.5];
    if (event.key === "Enter") seek(time);
    else if (event.key === "Escape") leave();
    else if (event.key in moves) {
      const [right, above] = moves[event.key];
      const { rows, columns } = maps.current;
      const { row, column } = axes.cell(time, up, maps.current);
      point(plot, maps.timeOf(clamp(column + right, 0, columns - 1)), (clamp(row + above, 0, rows - 1) + 0.5) / rows);
      live.textContent = plot.tip.textContent;
    } else return;
    event.preventDefault();
  }

  // ---- drawing ------------------------------------------------------------------------------------------------

  function paintMap() {
    const { rows, columns } = maps.current;
    const [value, range] = [maps.reader(maps.item), maps.scale];
    const over = !plots.map.beneath.hidden; // then opacity grows with attention, too
    paint(plots.map.canvas, rows, columns, (row, column, pixels, at) => {
      const share = shareOf(value(row, column), range);
      fill(colours.map, share, pixels, at, over ? Math.round(225 * Math.sqrt(share)) : 255);
    });
  }

  function paintSpectrogram() {
    const { rows, columns, low, high } = spectrogram;
    paint(plots.spectrogram.canvas, rows, columns, (row, column, pixels, at) => {
      const level = spectrogram.level(row, column);
      if (level !== null) fill(colours.spectrogram, level, pixels, at);
    });
    paint(plots.map.beneath, rows, columns, (row, column, pixels, at) => {
      const level = spectrogram.level(row, column);
      if (level === null) return;
      pixels.fill(Math.round(20 + 215 * level), at, at + 3);
      pixels[at + 3] = 255;
    });
    plots.spectrogram.describe("Spectrogram");
    const bar = new ColourBar(colours.spectrogram);
    bar.show(low.toFixed(1), high.toFixed(1), "log-mel magnitude (natural log)");
    return bar.element;
  }

  function draw() {
    const [low, high] = maps.scale;
    const above = maps.measures[maps.item].high > high * (1 + 1e-9) ? " and above" : "";
    mapBar.show(short(low), short(high) + above, maps.current.quantity);
    paintMap();
    title.textContent = `“${maps.label}”`;
    caption.textContent = maps.peakText;
    scaleSaid.textContent = maps.own
      ? "Colours run over this map's own values, and say nothing beside another's."
      : "All words share these colours at this step and readout, from 0 to the highest value of any word.";
    step.disabled = !maps.current.stepped;
    step.value = maps.viewShown;
    step.setAttribute("aria-valuetext", maps.viewLabel);
    stepSaid.textContent = maps.viewLabel;
    plots.map.describe(`Map of ${maps.label}`);
    tracks.draw();
    const named = (payload.events || []).filter((event) => event.items.includes(maps.item));
    for (const plot of Object.values(plots)) plot.showTruth(named);
    numbers.replaceChildren(wordTable(maps));
  }

  // ---- the page -------------------------------------------------------------------------------------------------

  const hatched = axes.audioSeconds < axes.seconds ? ` Hatched: beyond the audio, which ends at ${inSeconds(axes.audioSeconds)}.` : "";
  const sum = "These maps do not keep denoising steps apart (attnviz generate --keep step does), so there is no slider over them.";
  notices.hidden = !payload.notices.length;
  root.replaceChildren(
    make("header", {}, make("h1", {}, "Which sound did each word make?"), prompt, notices),
    player.element,
    spectrogram
      ? makeSection("Spectrogram", paintSpectrogram(), plots.spectrogram.element)
      : makeSection("Spectrogram", makeSaid("There is no spectrogram to show.")),
    make("section", { class: "section", "aria-label": "Map of the chosen word" },
      make("h2", {}, "Attention to ", title), mapBar.element, controls, plots.map.element, caption,
      makeSaid(scaleSaid, hatched), stepped ? null : makeSaid(sum)),
    tracks.element,
    scoreSection(payload.scores),
    makeFold("Words in numbers", numbers),
    recordFold(payload.record),
    live,
  );
  choose(0);
  player.show(0);
  new ResizeObserver(() => [...Object.values(plots), tracks].forEach((part) => part.fit())).observe(root);
}
