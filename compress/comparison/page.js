
const data = JSON.parse(document.getElementById("data").textContent);
const byId = name => document.getElementById(name);
const methods = [...new Set(data.tables[0].rows.filter(row => !row.control).map(row => row.method))];
const retentions = [...new Set(data.tables[0].rows.filter(row => !row.control).map(row => row.retention))].sort((a, b) => b - a);
const percent = share => `${+(100 * share).toPrecision(4)} %`;
const palette = ["#1f5fbf", "#d1495b", "#2a9d55", "#e08e0b", "#7b4bb7", "#00a3a3", "#8c564b", "#e377c2", "#5b6b7b", "#9aa51e", "#16a5d8", "#8c1d40"];
const colour = method => palette[methods.indexOf(method) % palette.length];
const dashes = method => ["", "6 3", "2 3"][Math.floor(methods.indexOf(method) / palette.length) % 3];
const front = new Set();

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => element("option", {value}, text)));
}

function showTable() {
  const table = data.tables[byId("video").value], chosen = byId("retention").value;
  const rows = table.rows.filter(row => chosen === "" || row.control || String(row.retention) === chosen);
  byId("table").tBodies[0].replaceChildren(...rows.map(row => {
    const name = element("td", {"data-key": row.method}, row.method);
    if (row.failed) name.append(" ", element("span", {class: "failed"}, `failed on ${row.failed}`));
    const cells = row.text.map((text, i) => element("td", {"data-key": row.value[i] ?? "", ...(row.best[i] ? {class: "best"} : {})}, text));
    const share = element("td", {"data-key": row.retention}, percent(row.retention));
    return element("tr", row.control ? {class: "control"} : {}, name, share, ...cells);
  }));
  const sorted = byId("table").querySelector("th[aria-sort]");
  if (sorted) sortRows(sorted);
}

function ticksOf(top) {
  const raw = top / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(one => one * power).find(one => one >= raw);
  return Array.from({length: Math.floor(top / step + 1e-9) + 1}, (_, i) => i * step);
}
function scaleOf(kind) {
  return {percent: [100, " %"], milliseconds: [1000, " ms"], tera: [1e-12, " T"], nats: [1, ""], count: [1, ""]}[kind];
}
function showCurves() {
  const rows = data.tables[byId("video").value].rows.filter(row => !row.control);
  const width = 360, height = 210, left = 46, right = 12, top = 10, bottom = 26;
  const low = Math.log(Math.min(...retentions)), high = Math.log(Math.max(...retentions));
  const x = share => left + (high > low ? (Math.log(share) - low) / (high - low) : .5) * (width - left - right);
  byId("curves").replaceChildren(...data.columns.flatMap((column, i) => {
    if (!column.curve) return [];
    const values = rows.map(row => row.value[i]).filter(value => value !== null);
    const most = Math.max(...values, 0);
    if (!values.length || !most) return [];
    const [factor, unit] = scaleOf(column.kind);
    const y = value => top + (1 - value / (1.04 * most)) * (height - top - bottom);
    const svg = drawing("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": column.says});
    for (const tick of ticksOf(most * factor)) {
      const at = y(tick / factor);
      svg.append(drawing("line", {x1: left, x2: width - right, y1: at, y2: at}));
      svg.append(drawing("text", {x: left - 5, y: at + 4, "text-anchor": "end"}, `${+tick.toPrecision(3)}${tick && unit === " %" ? "%" : ""}`));
    }
    for (const share of retentions) svg.append(drawing("text", {x: x(share), y: height - 8, "text-anchor": "middle"}, `${+(100 * share).toPrecision(3)}%`));
    for (const method of [...methods].sort((a, b) => front.has(a) - front.has(b))) {
      const points = rows.filter(row => row.method === method && row.value[i] !== null).sort((a, b) => a.retention - b.retention)
        .map(row => [x(row.retention), y(row.value[i]), row]);
      if (!points.length) continue;
      const group = drawing("g", {class: !front.size ? "" : front.has(method) ? "front" : "back"});
      group.append(drawing("polyline", {points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), stroke: colour(method), "stroke-dasharray": dashes(method),
        ...(front.has(method) ? {class: "front"} : {})}));
      for (const [a, b, row] of points) group.append(drawing("circle", {cx: a, cy: b, r: 2.6, fill: colour(method)},
        drawing("title", {}, `${method}, ${percent(row.retention)}: ${row.text[i]}`)));
      svg.append(group);
    }
    return [element("figure", {title: column.says}, element("figcaption", {}, column.curve), svg)];
  }));
}
function showLegend() {
  byId("legend").replaceChildren(...methods.map(method => {
    const button = element("button", {type: "button", "aria-pressed": front.has(method)}, element("i", {style: `border-top: 3px ${dashes(method) ? "dashed" : "solid"} ${colour(method)}`}), method);
    button.addEventListener("click", () => {
      front.has(method) ? front.delete(method) : front.add(method);
      button.setAttribute("aria-pressed", front.has(method));
      showCurves();
    });
    return button;
  }));
}

const loaded = new Map();
function framesOf(video) {
  if (!loaded.has(video)) loaded.set(video, Promise.all(video.frames.map(async text => {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${text}`;
    await image.decode();
    return image;
  })));
  return loaded.get(video);
}
function draw(canvas, image, video, kept) {
  const [rows, cols] = video.grid;
  const width = image ? image.naturalWidth : 12 * cols, height = image ? image.naturalHeight : 12 * rows;
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d");
  if (image) context.drawImage(image, 0, 0); else { context.fillStyle = "#2f6bcb"; context.fillRect(0, 0, width, height); }
  if (!kept) return;
  context.fillStyle = "rgba(255,255,255,.8)";
  const high = height * video.covered / rows, wide = width * video.covered / cols;
  const edge = (number, count, size, whole) => number === count ? whole : Math.round(number * size);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) if (!kept(r * cols + c)) {
    const x = edge(c, cols, wide, width), y = edge(r, rows, high, height);
    context.fillRect(x, y, edge(c + 1, cols, wide, width) - x, edge(r + 1, rows, high, height) - y);
  }
}
function bars(counts) {
  const most = Math.max(...counts, 1), svg = drawing("svg", {viewBox: `0 0 ${counts.length * 10} 24`, preserveAspectRatio: "none", role: "img", "aria-label": "tokens per frame"});
  counts.forEach((count, i) => svg.append(drawing("rect", {x: i * 10 + 1, width: 8, y: 24 - 24 * count / most, height: 24 * count / most},
    drawing("title", {}, `frame ${i}: ${count}`))));
  return svg;
}
async function showPictures() {
  const video = data.videos[byId("shown-video").value], chosen = byId("shown-retention").value;
  if (!video) return;
  const images = await framesOf(video);
  const strip = kept => element("div", {class: "strip"}, ...video.shown.map((frame, i) => {
    const canvas = element("canvas", {title: `frame ${frame}, ${video.seconds[i]} s`});
    draw(canvas, images[i], video, kept && (cell => kept(i * video.grid[0] * video.grid[1] + cell)));
    return canvas;
  }));
  const cards = [element("article", {}, element("h3", {}, "all tokens"), strip(null))];
  for (const one of video.kept) if (String(one.retention) === chosen) {
    const bytes = Uint8Array.from(atob(one.bits), letter => letter.charCodeAt(0));
    const total = one.counts.reduce((a, b) => a + b, 0);
    cards.push(element("article", {}, element("h3", {}, one.method, " ", element("span", {}, `${total} tokens`)),
      strip(cell => bytes[cell >> 3] >> (7 - (cell & 7)) & 1), bars(one.counts)));
  }
  byId("pictures").replaceChildren(...cards);
}

const middle = String(retentions.includes(.1) ? .1 : retentions[retentions.length - 1]);
fill(byId("video"), data.tables.map((table, i) => [i, table.name]));
fill(byId("retention"), [["", "all"], ...retentions.map(one => [one, percent(one)])]);
fill(byId("shown-video"), data.videos.map((video, i) => [i, video.name]));
fill(byId("shown-retention"), retentions.map(one => [one, percent(one)]));
byId("retention").value = byId("shown-retention").value = middle;
byId("controls").hidden = false;
byId("video").addEventListener("change", () => { showTable(); showCurves(); });
byId("retention").addEventListener("change", showTable);
byId("shown-video").addEventListener("change", showPictures);
byId("shown-retention").addEventListener("change", showPictures);
showTable(); showLegend(); showCurves(); showPictures();
