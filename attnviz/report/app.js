"use strict";
// Report of one run, or of two side by side with a common clock and selection of word, readout, step and colours.

function attnvizReport(root, payload) {
  const { runs, pairs } = payload;
  const colours = Object.fromEntries(Object.entries(payload.colours).map(([name, text]) => [name, bytesOf(text)]));
  const [first] = runs;
  const readouts = first.readouts.filter(({ name }) => runs.every((run) => run.readouts.some((one) => one.name === name)));
  const steps = Math.max(...runs.map(({ views }) => views.length)) - 1;
  // Open on the readout of the scores, so that the first maps are those that were scored.
  const scored = runs.map(({ scores }) => scores && scores.readout).find((name) => readouts.some((one) => one.name === name));
  const choice = { readout: scored || readouts[0].name, step: 0, steps, own: false, over: false };
  let place = null; // position of the cursor: [time, up]

  // ---- parts ---------------------------------------------------------------------------------------------

  const live = make("p", { class: "hidden", role: "status", "aria-live": "polite" });
  const panels = runs.map((run, number) => new Panel(run, choice, colours, payload.unlike, {
    choose: (item, focus = false) => choose(number, item, focus), point, leave, key, seek: (time) => player.seek(time),
  }));
  panels.forEach((panel) => {
    panel.maps.others = panels.filter((other) => other !== panel).map(({ maps }) => maps);
  });
  const lengths = runs.map(({ audio, axes }) => (audio ? audio.seconds : axes.audio_seconds));
  const player = new Player(runs, Math.max(...lengths), {
    moved: (time) => panels.forEach((panel) => panel.movePlayhead(time)),
    failed: (number) => panels[number].notice("This browser cannot play the audio (WAV) inside this file."),
  });

  // ---- controls -------------------------------------------------------------------------------------------

  const option = (value, label) => make("option", { value }, label);
  const readoutOption = (value) => {
    const made = option(value, readouts[value].label);
    made.selected = readouts[value].name === choice.readout;
    return made;
  };
  const group = (label, layer) => make("optgroup", { label },
    ...readouts.flatMap((one, at) => (one.layer === layer ? [readoutOption(at)] : [])));
  const set = (name, value) => {
    choice[name] = value;
    draw();
  };
  const stepSaid = make("span", { class: "step-said" });
  const labelsOf = new Set(runs.map(({ views }) => views.map(({ label }) => label).join("\n")));
  const widest = [...labelsOf].reduce((sum, labels) => sum + 3 + Math.max(...labels.split("\n").map(({ length }) => length)), -3);
  stepSaid.style.setProperty("--widest", `${widest}ch`); // so that its neighbours do not move with the label
  const step = make("input", {
    type: "range", min: "0", max: String(steps), step: "1", value: "0",
    "aria-label": "Denoising step; 0 is the average of all timesteps", oninput: () => set("step", Number(step.value)),
  });
  const overlay = make("button", { type: "button", class: "toggle", "aria-pressed": "false", onclick: () => {
    overlay.setAttribute("aria-pressed", String(!choice.over));
    set("over", !choice.over);
  } }, "Over the spectrogram");
  overlay.hidden = !panels.some(({ spectrogram, axes }) => spectrogram && !axes.flat);
  const sum = "The denoising steps of these maps were not kept. Use attnviz generate --keep step for a slider over the steps.";
  const controls = make("div", { class: "controls" },
    makeChoice("Readout", [group("all layers", false), group("one layer", true)], (at) => set("readout", readouts[at].name)),
    make("label", { class: "choice steps", title: steps ? null : sum }, make("span", {}, "Denoising"), steps ? step : null, stepSaid),
    makeChoice("Colours", [option(0, "shared by all words"), option(1, "this map's own range")], (value) => set("own", value === 1)),
    overlay);

  // ---- actions -----------------------------------------------------------------------------------------------

  // Select an item of one run and its counterpart in the other.
  function choose(number, item, focus) {
    panels.forEach((panel, other) => {
      if (other === number) panel.take(item, focus);
      else if (number === 0) panel.take(pairs[other - 1][item], false);
      else panel.take(indexOrNull(pairs[number - 1], item), false);
    });
    draw();
    live.textContent = panels[number].said;
  }

  function point(panel, plot, time, up) {
    place = [time, up];
    for (const one of panels) one.showCursor(time, up, one === panel ? plot : null);
  }

  function leave() {
    place = null;
    for (const panel of panels) panel.hideCursor();
  }

  // Move the cursor by keyboard, one cell of the map at a time.
  function key(panel, plot, event) {
    const { maps, axes } = panel;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [time, up] = place || [player.time, 0.5];
    if (event.key === "Enter") player.seek(time);
    else if (event.key === "Escape") leave();
    else if (event.key in moves) {
      const [right, above] = moves[event.key];
      const { rows, columns } = maps.current;
      const { row, column } = axes.cell(time, up, maps.current);
      point(panel, plot, maps.timeOf(clamp(column + right, 0, columns - 1)), (clamp(row + above, 0, rows - 1) + 0.5) / rows);
      live.textContent = plot.tip.textContent;
    } else return;
    event.preventDefault();
  }

  // Scroll to the map after a tap on a word, for small screens.
  function reveal(event) {
    if (event.target.closest(".word")) panels[0].plots.map.area.scrollIntoView({ block: "nearest" });
  }

  // ---- the page -------------------------------------------------------------------------------------------------

  function draw() {
    for (const panel of panels) panel.draw();
    const stepped = panels.some(({ maps }) => maps.current.stepped);
    const labels = new Set(panels.map(({ maps }) => maps.viewLabel)); // runs may have different numbers of steps
    step.disabled = !stepped;
    step.value = stepped ? choice.step : 0;
    stepSaid.textContent = [...labels].join(" / ");
    step.setAttribute("aria-valuetext", stepSaid.textContent);
  }

  const sounds = panels.flatMap(({ spectrogram }) => spectrogram || []);
  const [low, high] = [Math.min(...sounds.map((one) => one.low)), Math.max(...sounds.map((one) => one.high))];
  panels.forEach((panel) => panel.paintSpectrogram(low, high));
  const several = panels.length > 1;
  root.classList.toggle("several", several);
  root.replaceChildren(
    ...(several ? [] : [panels[0].head]), player.element, controls,
    make("div", { class: "panels" }, ...panels.map(({ head, sections }) => make("div", { class: "panel" }, ...(several ? [head] : []), ...sections))),
    live,
  );
  root.addEventListener("click", reveal);
  choose(0, first.first, false);
  player.show(0);
  new ResizeObserver(() => panels.forEach((panel) => panel.fit())).observe(root);
  // In a notebook, adapt the frame to the height of the page. A sandboxed frame keeps its height and scrolls.
  const frame = root.classList.contains("attnviz-framed") && window.frameElement;
  if (frame) new ResizeObserver(() => { frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + 2}px`; }).observe(root);
}

function indexOrNull(list, value) {
  const at = list.indexOf(value);
  return at < 0 ? null : at;
}
