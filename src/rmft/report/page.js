"use strict";
// Draws every chart in the page's own colours, again when the theme changes, and offers logarithmic axes.
const charts = JSON.parse(document.getElementById("charts-data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const changes = { "font.color": colour("--ink"), "legend.font.color": colour("--ink"),
    "hoverlabel.bgcolor": colour("--paper"), "hoverlabel.font.color": colour("--ink"),
    "hoverlabel.bordercolor": colour("--soft"), "modebar.color": colour("--soft"),
    "modebar.activecolor": colour("--ink") };
  for (const axis of ["xaxis", "yaxis"]) {
    changes[axis + ".gridcolor"] = colour("--grid");
    changes[axis + ".linecolor"] = changes[axis + ".tickcolor"] = colour("--soft");
    changes[axis + ".title.font.color"] = changes[axis + ".tickfont.color"] = colour("--soft");
  }
  return changes;
}

function draw(div) {
  const { data, layout } = charts[div.id];
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13 };
  const names = data.filter((trace) => trace.showlegend !== false).length;
  layout.height = div.clientHeight + (div.clientWidth < 600 ? 12 * names : 0); // a narrow legend is tall
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
  const options = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"] };
  Plotly.newPlot(div, data, layout, options).then(() => Plotly.relayout(div, theme()));
}

function offerLogarithms(div) {
  const buttons = div.closest("figure").querySelector(".buttons");
  if (!buttons) return;
  buttons.hidden = false;
  for (const button of buttons.children) {
    button.addEventListener("click", () => {
      for (const other of buttons.children) other.setAttribute("aria-pressed", String(other === button));
      const type = button.value;
      Plotly.relayout(div, { "xaxis.type": type, "yaxis.type": type, "xaxis.autorange": true, "yaxis.autorange": true });
    });
  }
}

for (const div of document.querySelectorAll(".chart")) {
  draw(div);
  offerLogarithms(div);
}
dark.addEventListener("change", () => {
  for (const div of document.querySelectorAll(".chart")) Plotly.relayout(div, theme());
});
