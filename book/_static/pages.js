/* What the pages do beyond showing: figures enlarge, links say where they lead, wide things show that they scroll, formulas
   break anew when the window changes. Without scripts all of it is still readable. */
(() => {
  "use strict";

  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Figures: a click on the picture or its button opens it as large as the window; Esc, a click or the button closes it.
  function enlarge(image) {
    const close = make("button", { type: "button", className: "enlarged-close", textContent: "Close" });
    const picture = make("img", { src: image.currentSrc || image.src, alt: image.alt });
    const dialog = make("dialog", { className: "enlarged", ariaLabel: "Enlarged figure" }, close, make("div", { tabIndex: 0 }, picture));
    dialog.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  function enlargeable(image) {
    image.closest("a.image-reference")?.replaceWith(image); // Sphinx's own link to a picture with a width
    if (image.closest("a, button, .sd-card, [class*='live']")) return;
    const button = make("button", { type: "button", className: "enlarge", title: "Enlarge the figure" });
    button.setAttribute("aria-label", "Enlarge the figure");
    const frame = make("span", { className: "enlargeable" });
    image.replaceWith(frame);
    frame.append(image, button);
    for (const element of [image, button]) element.addEventListener("click", () => enlarge(image));
  }

  // What scrolls sideways fades at the edge behind which there is more, and can be scrolled with the keys.
  const SCROLLING = "div.highlight pre, .pst-scrollable-table-container, div.cell_output .output, div.math";

  function showScrolling(box) {
    const more = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more-right", more > 1 && box.scrollLeft < more - 1);
    box.classList.toggle("more-left", more > 1 && box.scrollLeft > 1);
    if (more > 1) box.tabIndex = 0;
    box.classList.toggle("keeps-first", more > 1 && narrowFirst(box));
  }

  // Whether the first column names the rows and leaves room for the others.
  function narrowFirst(box) {
    const first = box.querySelector(":scope tbody tr > :first-child");
    return Boolean(first) && !box.querySelector("tbody [rowspan]") && first.offsetWidth < 0.45 * box.clientWidth;
  }

  // Three lines with gaps are a table, whose lines must not break.
  const inColumns = (pre) => pre.textContent.split("\n").filter((line) => /\S {2,}\S/.test(line)).length > 2;

  function watchScrolling() {
    for (const pre of document.querySelectorAll("div.cell_output pre")) pre.classList.toggle("in-columns", inColumns(pre));
    const boxes = document.querySelectorAll(SCROLLING);
    const watcher = new ResizeObserver((entries) => entries.forEach((entry) => showScrolling(entry.target)));
    for (const box of boxes) {
      box.addEventListener("scroll", () => showScrolling(box), { passive: true });
      watcher.observe(box);
      showScrolling(box);
    }
  }

  // Links: hover or focus shows the template that the build has stored for the same address (book/_ext/previews.py).
  let shown = null;
  let timer = 0;

  function hide() {
    clearTimeout(timer);
    if (!shown) return;
    shown.link.removeAttribute("aria-describedby");
    shown.box.remove();
    shown = null;
  }

  function place(box, link) {
    const at = link.getClientRects()[0];
    const width = Math.min(460, innerWidth - 24);
    box.style.width = `${width}px`;
    box.style.left = `${scrollX + Math.max(12, Math.min(at.left, innerWidth - width - 12))}px`;
    box.style.maxHeight = "";
    const [below, over] = [innerHeight - at.bottom - 16, at.top - 16];
    const above = box.offsetHeight > below && over > below;
    box.style.maxHeight = `${Math.min(box.offsetHeight, above ? over : below)}px`;
    box.style.top = `${scrollY + (above ? at.top - box.offsetHeight - 6 : at.bottom + 6)}px`;
  }

  async function show(link, template) {
    hide();
    const box = make("div", { id: "preview", className: "preview bd-article" }, template.content.cloneNode(true));
    box.setAttribute("role", "tooltip");
    box.addEventListener("pointerenter", () => clearTimeout(timer));
    box.addEventListener("pointerleave", () => later(hide));
    document.body.append(box);
    link.setAttribute("aria-describedby", "preview");
    shown = { link, box };
    place(box, link);
    if (box.querySelector(".math") && window.MathJax?.typesetPromise) await MathJax.typesetPromise([box]);
    for (const image of box.querySelectorAll("img")) image.addEventListener("load", () => place(box, link));
    if (shown?.box === box) place(box, link);
  }

  function later(action, wait = 250) {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  }

  function watchLinks() {
    const templates = new Map([...document.querySelectorAll("template.preview-of")].map((t) => [t.dataset.of, t]));
    for (const link of document.querySelectorAll(".bd-article a[href*='#']:not(.headerlink)")) {
      const template = templates.get(link.getAttribute("href"));
      if (!template) continue;
      link.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && later(() => show(link, template)));
      link.addEventListener("pointerleave", () => later(hide));
      link.addEventListener("focus", () => link.matches(":focus-visible") && show(link, template));
      link.addEventListener("blur", () => hide());
    }
    document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  }

  // Formulas: MathJax breaks lines once, for the width it finds.
  let width = innerWidth;
  function breakAnew() {
    if (innerWidth === width || !window.MathJax?.startup?.document?.rerender) return;
    width = innerWidth;
    MathJax.startup.document.rerender(20);
  }

  // Paper shows what is folded.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => (details.open = true)));

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".bd-article figure img, .bd-article .cell_output img").forEach(enlargeable);
    watchScrolling();
    watchLinks();
    let waiting = 0;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(breakAnew, 200);
    });
  });
})();
