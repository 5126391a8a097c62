"use strict";
{
  const { config, specs } = JSON.parse(document.getElementById("charts").textContent);
  const views = new Map();  // by element

  const switchedOn = (section) =>
    [...section.querySelectorAll("[data-switch][aria-pressed=true]")].map((button) => button.dataset.switch);

  // A chart of several methods filters its rows by the signal `shown`; a chart of one is hidden as a whole.
  async function draw(element) {
    if (views.has(element)) return;
    views.set(element, null);
    const options = { config, actions: false, renderer: "svg", ast: true, tooltip: { disableDefaultStyle: true } };
    const { view } = await vegaEmbed(element, specs[element.dataset.chart], options);
    views.set(element, view);
    show(element);
  }

  function show(element) {
    const view = views.get(element);
    const shown = specs[element.dataset.chart].params?.find((param) => param.name === "shown");
    const section = element.closest("section");
    if (!view || !shown || !section.querySelector("[data-switch]")) return;
    const on = switchedOn(section).filter((method) => shown.value.includes(method));
    element.classList.toggle("empty", !on.length);  // and drawn as it was: axes of nothing have no ends
    if (on.length) view.signal("shown", on).runAsync();
  }

  function update(section) {
    const on = switchedOn(section);
    for (const one of section.querySelectorAll("[data-method]")) one.hidden = !on.includes(one.dataset.method);
    for (const element of section.querySelectorAll("[data-chart]")) show(element);
  }

  for (const section of document.querySelectorAll("section")) {
    const buttons = [...section.querySelectorAll("[data-switch]")];
    for (const button of buttons)
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
        update(section);
      });
    section.querySelector("[data-switch-all]")?.addEventListener("click", () => {
      const all = buttons.every((button) => button.getAttribute("aria-pressed") === "true");
      for (const button of buttons) button.setAttribute("aria-pressed", !all);
      update(section);
    });
  }

  // Numbers from the largest, texts from the first; again: the other way round. What has no number stays last.
  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0];
    const place = header.cellIndex, named = isNaN(body.rows[0].cells[place].dataset.key ?? "a name");
    const descending = header.hasAttribute("aria-sort") ? header.getAttribute("aria-sort") === "ascending" : !named;
    const sign = descending ? -1 : 1;
    const key = (row) => row.cells[place].dataset.key ?? row.cells[place].textContent;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    body.append(...[...body.rows].sort(order));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  for (const button of document.querySelectorAll(".sortable thead button"))
    button.addEventListener("click", () => sort(button.closest("th")));

  // Charts are drawn when they come near, and all of them before printing.
  const elements = [...document.querySelectorAll("[data-chart]")];
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "600px" },
  );
  elements.forEach((element) => near.observe(element));
  addEventListener("beforeprint", () => elements.forEach(draw));

  const links = new Map([...document.querySelectorAll("nav ul a")].map((link) => [link.hash.slice(1), link]));
  const read = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries)
        if (isIntersecting) {
          links.forEach((link) => link.removeAttribute("aria-current"));
          links.get(target.id)?.setAttribute("aria-current", "true");
        }
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  document.querySelectorAll("section[id]").forEach((section) => read.observe(section));
}
