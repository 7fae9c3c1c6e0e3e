// Draws the plots of the page and moves the temperature; everything it needs stands in the page itself.
const page = JSON.parse(document.getElementById("page-data").textContent);
const options = {
  mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};
const views = {};

async function draw(place, name) {
  const spec = page.plots[name];
  if (spec.data.name) spec.datasets = { [spec.data.name]: page.points };
  const drawn = await vegaEmbed(place, spec, options);
  views[place.id] = drawn.view;
}

function setTemperature() {
  const slider = document.getElementById("temperature");
  const step = Number(slider.value);
  const told = `${page.temperatures[step]}: a win meets ${page.contrasts[step].toFixed(2)} losses effectively, ` +
    `${Math.round(page.own[step] * 100)} % of its weight lies in its own cells`;
  document.getElementById("temperature-told").textContent = told;
  slider.setAttribute("aria-valuetext", told);
  for (const id of ["plot-contrasts", "plot-shares"]) views[id].signal("step", step).runAsync();
}

async function start() {
  const places = [...document.querySelectorAll("[data-plot]")];
  await Promise.all(places.map((place) => draw(place, place.dataset.plot)));
  document.getElementById("temperature").addEventListener("input", setTemperature);
  setTemperature();
  for (const choice of document.querySelectorAll("input[name=map-color]")) {
    choice.addEventListener("change", () => {
      document.getElementById("caption-map").textContent = choice.dataset.caption;
      draw(document.getElementById("plot-map"), choice.value);
    });
  }
  document.documentElement.dataset.drawn = "yes";
}

window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
start();
