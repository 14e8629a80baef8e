// Charts in the page's own colours, light or dark; logarithmic axes, switched policies, PNG and SVG.

const dark = matchMedia("(prefers-color-scheme: dark)");
const LIGHT = { "--paper": "#ffffff", "--ink": "#1c2024", "--soft": "#5b6470", "--grid": "#e6e8eb" };

function chartBlock(block, drawings) {
  const alternative = `Chart: ${block.title}. ${block.caption} The same numbers are in the table below it.`;
  const div = element("div", { class: "chart", role: "img", "aria-label": alternative });
  div.chart = block;
  drawings.push(() => draw(div));
  const details = element("details", { ontoggle: () => {
    if (details.open && details.children.length < 2) details.append(scrolling(block));
  } }, element("summary", {}, `${block.title} as a table`));
  const buttons = [csvButton(block), ...["PNG", "SVG"].map((type) => element("button", { type: "button",
    "aria-label": `Download ${block.title} as ${type}`, onclick: () => download(block, type.toLowerCase()) }, type))];
  if (block.log_axes) buttons.unshift(axesButton());
  return element("figure", { class: block.wide ? "block wide" : "block" },
    element("div", { class: "title" }, element("h3", {}, block.title), tools(buttons)),
    element("figcaption", {}, block.caption), div, details);
}

function axesButton() {
  const pressed = () => state().get("axes") === "log";
  return element("button", { type: "button", class: "axes", "aria-pressed": String(pressed()), onclick: (event) => {
    change({ axes: pressed() ? null : "log" });
    event.target.setAttribute("aria-pressed", String(pressed()));
    document.querySelectorAll(".chart").forEach(restyle);
  } }, "logarithmic");
}

function theme(colours) {
  const [paper, ink, soft, grid] = ["--paper", "--ink", "--soft", "--grid"].map(colours);
  const axis = { gridcolor: grid, linecolor: soft, tickcolor: soft, title: { font: { color: soft } }, tickfont: { color: soft } };
  return { axis, layout: { font: { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily },
    legend: { font: { color: ink } }, hoverlabel: { bgcolor: paper, bordercolor: soft, font: { color: ink } } } };
}

function figure(block, colours) { // what plotly is to draw, with the view's switches and the theme's colours
  const { data, layout } = block.figure;
  const { axis, layout: themed } = theme(colours);
  const made = { ...layout, ...themed, legend: { ...layout.legend, ...themed.legend }, showlegend: !block.policies };
  const type = block.log_axes && state().get("axes") === "log" ? "log" : null;
  for (const name of ["xaxis", "yaxis"]) {
    made[name] = { ...layout[name], ...axis, title: { ...layout[name].title, ...axis.title } };
    if (type) made[name].type = type;
  }
  const chosen = block.policies ? chosenPolicies() : null;
  const traces = data.map((trace) => ({ ...trace, visible: !chosen || !trace.legendgroup || chosen.has(trace.legendgroup) }));
  return { data: traces, layout: made };
}

function plotly() { // is large, and so read when the first chart is drawn
  if (!window.Plotly) document.head.append(element("script", {}, document.getElementById("plotly").textContent));
  return window.Plotly;
}

function draw(div) {
  const { data, layout } = figure(div.chart, colour);
  const names = layout.showlegend ? data.filter((trace) => trace.showlegend !== false).length : 0;
  layout.height = div.clientHeight + (div.clientWidth < 600 ? 12 * names : 0); // a narrow legend is tall
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
  const options = { responsive: true, displayModeBar: false, showSendToCloud: false, plotlyServerURL: "" };
  return plotly().react(div, data, layout, options);
}

function restyle(div) {
  if (div.chart && div.classList.contains("js-plotly-plot")) draw(div);
}

function download(block, format) { // on white, with its legend and title
  const { data, layout } = figure(block, (name) => LIGHT[name]);
  const whole = { ...layout, showlegend: true, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", margin: { ...layout.margin, t: 60 },
    title: { text: block.title, x: 0.5, font: { size: 16 } } };
  const size = { width: 1000, height: 640, scale: format === "png" ? 2 : 1 };
  Plotly.downloadImage({ data, layout: whole }, { format, ...size, filename: fileName(block.title, "").slice(0, -1) });
}

function redraw() {
  document.querySelectorAll(".chart").forEach(restyle);
}

dark.addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  for (const div of document.querySelectorAll(".js-plotly-plot")) {
    const { data, layout } = figure(div.chart, (name) => LIGHT[name]);
    Plotly.react(div, data, { ...layout, height: div.clientHeight, width: Math.min(div.clientWidth, 660) });
  }
});
addEventListener("afterprint", redraw);
