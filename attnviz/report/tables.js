"use strict";
// Tables of words, of scores with controls, and of the settings of the run.

// Rows are { cells, mark }. The last cell of a short row spans the remaining columns.
function makeTable(label, head, rows) {
  const across = (cells, at) => (at === cells.length - 1 && cells.length < head.length ? head.length - at : null);
  const line = ({ cells, mark }) => make("tr", { class: mark || "" }, ...cells.map((cell, at) => make(
    at ? "td" : "th", at ? { colspan: across(cells, at), "data-name": head[at] } : { scope: "row", dir: "auto" }, cell ?? "–",
  )));
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": label }, make(
    "table", {},
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col", "data-name": name }, name)))),
    make("tbody", {}, ...rows.map(line)),
  ));
}

function wordTable(maps) {
  const rows = maps.measures.map((one, item) => ({
    mark: item === maps.item ? "chosen" : "",
    cells: [maps.items[item].label, ...(one.curve.length
      ? [
        maps.shown(one.mean), maps.shown(one.peak), maps.timeOf(one.column).toFixed(2),
        ...(maps.axes.flat ? [] : [String(Math.round(maps.hertzOf(one.row)))]),
      ]
      : ["no column within the audio"])],
  }));
  const places = maps.axes.flat ? ["at (s)"] : ["at (s)", "at (Hz)"];
  return makeTable("Words in numbers", ["word", `mean ${maps.current.quantity}`, "strongest", ...places], rows);
}

// What the keys of each kind receive together: words, and what stands for no word.
function segmentTable(segments) {
  const rows = segments.map(({ label, keys, share, mark }) => ({
    mark, cells: [label, keys === null ? null : String(keys), share === null ? null : asShare(share)],
  }));
  return makeTable("Attention by kind of key", ["kind of key", "keys", "attention together, mean of all layers"], rows);
}

// `unlike` says if the scores of the other run are of another readout or other columns.
function scoreSection(scores, unlike) {
  if (!scores) {
    return makeSection("Scores", makeSaid(
      "This run has no alignment.csv. Use attnviz align to score its maps against sound events, with controls."));
  }
  const rows = scores.rows.map(({ phrase, method, draws, undefined: reason, values }) => ({
    mark: method === "map" ? "chosen first" : "",
    cells: [
      phrase, draws > 1 ? `${method} (mean of ${draws})` : method,
      ...(reason ? [`not scored: ${reason}`] : values.map((value) => (value === null ? null : value.toFixed(3)))),
    ],
  }));
  return makeSection("Scores and controls",
    makeSaid(`Readout of the scores: ${scores.of}${scores.columns ? `, in columns of ${scores.columns} ms` : ""}. ` +
      `How well the map of this readout matches the times of the sound${scores.against}, with controls.`),
    ...(unlike ? [makeSaid(unlike)] : []),
    makeTable("Scores and controls", ["phrase", "method", ...scores.names], rows));
}

function recordFold(sections) {
  const parts = sections.map(({ title, rows }) => make("div", {},
    title ? make("h3", {}, title) : null,
    make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, value)]))));
  return makeFold("How this was made", ...parts);
}
