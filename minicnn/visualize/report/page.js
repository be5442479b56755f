"use strict";
// `selected` is what the user chose; `draw` shows it. Everything else fills the page once.

const run = JSON.parse(document.getElementById("run").textContent);
const snapshots = JSON.parse(document.getElementById("snapshots").textContent);
const selected = { layer: 1, sample: 0, snapshot: snapshots.length - 1 };
const byId = id => document.getElementById(id);

// A new element with these attributes and children (text or elements).
function make(name, attributes = {}, ...children) {
  const isSvg = name === "rect" || name === "line";
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const formatShape = shape => shape.join(" × ") || "1";
const formatCount = n => n.toLocaleString("en");
const formatNumber = x => x === null ? "NaN or infinite" : Math.abs(x) >= 0.001 || x === 0 ? String(+x.toPrecision(3)) : x.toExponential(1);

function fillTable(table, pairs) {
  table.replaceChildren(...pairs.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
}

// A group of radio buttons, one around each of `contents`; `key` is what it changes in `selected`. The arrow keys come from the browser.
function fillChoices(fieldset, key, contents) {
  contents.forEach((content, i) => {
    const input = make("input", { type: "radio", name: key, value: i, id: `${key}-${i}` });
    input.addEventListener("change", () => { selected[key] = i; draw(); });
    content.classList.add("choice");
    fieldset.append(make("label", {}, input, content));
  });
}

// Bars with the name of a class and a value: [class, value]; signed ones start in the middle.
function makeBars(list, label, signed) {
  const box = make("div", { class: "bars" });
  const largest = signed ? Math.max(...list.map(([, value]) => Math.abs(value)), 1e-9) : 1;
  for (const [c, value] of list) {
    const isTrue = c === label ? " true" : "";
    const bar = make("span", { class: "bar" + (signed ? value > 0 ? " positive" : "" : " probability" + isTrue) });
    const width = 100 * Math.abs(value) / largest;
    bar.style.width = `${signed ? width / 2 : width}%`;
    bar.style.left = signed ? `${value < 0 ? 50 - width / 2 : 50}%` : "0";
    const text = signed || value === null ? formatNumber(value) : `${(100 * value).toFixed(1)} %`;
    box.append(make("span", { class: "name" + isTrue, title: run.classes[c] }, run.classes[c]),
               make("span", { class: "track" }, bar), make("span", { class: "number" }, text));
  }
  return box;
}

// A histogram: the number of elements in each bin, from -limit to limit.
function drawBins(svg, histogram, what) {
  svg.replaceChildren();
  if (!histogram) return;
  const [counts, limit] = histogram, highest = Math.max(...counts, 1);
  svg.setAttribute("viewBox", `0 0 ${counts.length} 24`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `histogram of ${what}, from ${formatNumber(-limit)} to ${formatNumber(limit)}`);
  counts.forEach((count, i) => svg.append(make("rect", { x: i + 0.1, width: 0.8, y: 24 - 24 * count / highest, height: 24 * count / highest })));
}

function fillPanel(panel, source, text, alt) {
  panel.querySelector(".drawing").replaceChildren(...source ? [make("img", { src: source, alt })] : []);
  panel.querySelector(".text").textContent = text || "";
}

const inSnapshot = (snapshot, name) => snapshot.layers[name] || {};
const resolve = (snapshot, layer) => layer.same_as ? snapshot.layers[layer.same_as] : layer;     // a layer that returned its input unchanged

function draw() {
  const snapshot = snapshots[selected.snapshot], info = run.layers[selected.layer], s = selected.sample, sample = run.samples[s];
  const own = inSnapshot(snapshot, info.name), layer = resolve(snapshot, own), className = run.classes[sample.label];
  drawControls(snapshot, className, s);

  byId("name").textContent = info.name;
  byId("kind").textContent = info.kind;
  byId("formula").textContent = info.formula || "";
  byId("formula").hidden = !info.formula;
  for (const direction of ["forward", "backward"]) {
    const panel = byId(direction), source = info[direction + "_source"], speed = info.speed && info.speed[direction];
    const shapes = direction === "forward" ? [info.in, info.out] : [info.out, info.in];
    panel.querySelector(".shapes").textContent = info.in ? shapes.map(formatShape).join(" → ") : formatShape(info.out);
    const prefix = direction === "backward" ? "gradient with respect to the output: " : "output: ";
    const text = layer[direction + "_text"] ? prefix + layer[direction + "_text"][s] + (info.channels ? `; shown: ${info.channels}` : "") : "";
    fillPanel(panel, layer[direction] && layer[direction][s], text, `${info.name}, ${direction}: ${text}`);
    panel.querySelector(".speed").textContent = speed ? speed[1] : "";
    panel.querySelector("details").hidden = !source;
    panel.querySelector("details pre").textContent = source || "";
  }
  if (info.name === "image") {
    fillPanel(byId("forward"), sample.image, `test image, class: ${className}`, `test image, class: ${className}`);
    byId("backward").querySelector(".text").textContent = `gradient with respect to the pixels: ${layer.backward_text[s]}`;
  } else if (info.name === "loss") {
    byId("forward").querySelector(".drawing").replaceChildren(makeBars(layer.bars[s].map(([c, p]) => [c, p]), sample.label, false));
    byId("backward").querySelector(".drawing").replaceChildren(makeBars(layer.bars[s].map(([c, , g]) => [c, g]), sample.label, true));
    byId("forward").querySelector(".text").textContent = "probabilities after softmax; the true class is bold";
    byId("backward").querySelector(".text").textContent =
      "gradient with respect to the scores, where backward starts: the probability, minus 1 for the true class";
  } else if (!layer.backward) {
    byId("backward").querySelector(".text").textContent = "no gradient reached this layer";
  }

  byId("parameters").hidden = !own.weight;
  if (own.weight) {
    for (const [id, what] of [["weight", "the weights"], ["gradient", "the gradient"]]) {
      fillPanel(byId(id), layer[id], layer[id + "_text"], `${what} of ${info.name}`);
      drawBins(byId(id).querySelector(".bins"), layer[id + "_bins"], what);
    }
    const ratio = layer.update_ratio;
    byId("update").textContent = ratio === undefined || ratio === null ? ""
      : `Last update: ${(100 * ratio).toPrecision(2)} % of the weights in norm (about 0.1 % is usual).`;
  }
  fillTable(byId("costs"), info.costs || []);
  const address = new URLSearchParams({ layer: info.name, image: s + 1, step: snapshot.step });
  try { history.replaceState(null, "", "#" + address); } catch { /* not allowed where the page is inside a frame */ }
}

function drawControls(snapshot, className, s) {
  const fieldset = byId("layers"), button = byId(`layer-${selected.layer}`), chosen = button.parentElement, nav = fieldset.parentElement;
  button.checked = byId(`sample-${s}`).checked = true;
  fieldset.scrollLeft = chosen.offsetLeft - fieldset.clientWidth / 2 + chosen.clientWidth / 2;       // on a phone the layers are a strip,
  if (nav.scrollHeight > nav.clientHeight) nav.scrollTop = chosen.offsetTop - nav.clientHeight / 2;  // else a list
  const label = snapshot.step === 0 ? "before the first step" : `after ${formatCount(snapshot.step)} step${snapshot.step > 1 ? "s" : ""}`;
  byId("step").value = selected.snapshot;
  byId("step").setAttribute("aria-valuetext", label);
  byId("snapshot-label").textContent = label;
  byId("loss").textContent = `loss of this image (${className}): ${formatNumber(snapshot.loss[s])}`;
  for (const svg of document.querySelectorAll("svg.curves")) {
    const { left, right, last } = svg.dataset;
    const x = +left + (right - left) * Math.min(1, snapshot.step / Math.max(last, 1));
    for (const end of ["x1", "x2"]) svg.querySelector(".cursor").setAttribute(end, x);
  }
  drawMagnitudes(snapshot, s);
}

// Beside each layer two bars: the magnitude of its output, and of the gradient with respect to it; 1/10,000 of the largest has no length.
function drawMagnitudes(snapshot, s) {
  const magnitudes = run.layers.map(({ name }) => resolve(snapshot, inSnapshot(snapshot, name)).magnitudes);
  for (const which of [0, 1]) {
    const largest = Math.max(...magnitudes.map(m => m && m[s][which] || 0), 1e-30);
    magnitudes.forEach((m, i) => {
      const share = m ? 1 + Math.log10(Math.max(m[s][which] / largest, 1e-4)) / 4 : 0;
      byId(`layer-${i}`).nextElementSibling.querySelectorAll(".magnitude")[which].style.width = `${100 * share}%`;
    });
  }
}

// The address may name what to show: #layer=conv2&image=1&step=300
function selectFromAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const find = (list, test, otherwise) => { const i = list.findIndex(test); return i < 0 ? otherwise : i; };
  selected.layer = find(run.layers, layer => layer.name === address.get("layer"), selected.layer);
  selected.sample = Math.min(run.samples.length - 1, Math.max(0, (parseInt(address.get("image")) || selected.sample + 1) - 1));
  selected.snapshot = find(snapshots, snapshot => String(snapshot.step) === address.get("step"), selected.snapshot);
  draw();
}

// A layer as a block: as high as its feature maps, as wide as it has channels, both on a logarithmic scale.
function makeBlock(layer) {
  const isMap = layer.out.length === 3, [C, H] = isMap ? layer.out : [1, layer.out[0] || 1];
  const hasParameters = (layer.costs || []).some(([name]) => name === "parameters");
  const block = make("span", { class: "block" + (hasParameters ? " weights" : "") });
  block.style.width = `${isMap ? 4 + 5 * Math.log2(C) : 4}px`;
  block.style.height = `${4 + (isMap ? 5 : 3) * Math.log2(H)}px`;
  return block;
}

function addGallery(title, predictions) {
  if (!predictions || !predictions.length) return;
  byId("gallery").append(make("h3", {}, title), ...predictions.map(({ image, label, bars }) => make("div", { class: "prediction" },
    make("div", {}, make("img", { src: image, alt: run.classes[label] }), make("span", { class: "label" }, run.classes[label])),
    makeBars(bars, label, false))));
}

function addConfusionMatrix(counts) {
  if (!counts) return;
  const head = make("tr", {}, make("th"), ...run.classes.map(name => make("th", { scope: "col", title: name }, name)));
  const body = counts.map((row, i) => {
    const sum = Math.max(row.reduce((a, b) => a + b, 0), 1);
    return make("tr", {}, make("th", { scope: "row", class: "row" }, run.classes[i]), ...row.map((count, j) => {
      const cell = make("td", { title: `true ${run.classes[i]}, predicted ${run.classes[j]}: ${count}` }, count ? String(count) : "");
      cell.style.background = `color-mix(in srgb, var(${i === j ? "--blue" : "--red"}) ${Math.round(45 * count / sum)}%, transparent)`;
      return cell;
    }));
  });
  byId("confusion-matrix").append(make("p", {}, "Confusion matrix: a row for each true class, a column for each predicted class."),
                                  make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

fillTable(byId("summary"), run.summary);
byId("findings").append(...run.findings.map(f => make("p", { class: "finding" }, `step ${f.step}: ${f.layer}: ${f.message}`)));
fillChoices(byId("samples"), "sample", run.samples.map(sample =>
  make("span", {}, make("img", { src: sample.image, alt: "" }), run.classes[sample.label])));
fillChoices(byId("layers"), "layer", run.layers.map(layer =>
  make("span", {}, makeBlock(layer), make("span", {}, layer.name, make("span", { class: "shape" }, formatShape(layer.out))),
    make("span", { class: "magnitudes" }, make("span", { class: "magnitude" }), make("span", { class: "magnitude back" })))));
byId("step").max = snapshots.length - 1;
byId("step").addEventListener("input", () => { selected.snapshot = +byId("step").value; draw(); });
const { images, accuracy, step, non_finite } = run.test;
byId("accuracy").textContent = `Top-1 accuracy after step ${formatCount(step)}: ${accuracy.toFixed(1)} % of ${formatCount(images)} test images.` +
  (non_finite ? ` For ${formatCount(non_finite)} of them the output of the network is NaN.` : "");
addGallery("Examples", run.test.examples);
addGallery("Most confident mistakes", run.test.mistakes);
addConfusionMatrix(run.test.confusion_matrix);
window.addEventListener("hashchange", selectFromAddress);
selectFromAddress();
