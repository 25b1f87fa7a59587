/* What the live figures share: controls, a line that says what happened, a plane with axes, and how a figure takes its place. */
"use strict";

(function (Live) {
  let made = 0;
  /** An id that no other figure of the page has. */
  const unique = () => `live-${++made}`;

  function build(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null));
    return node;
  }

  /** An HTML element: el("p", {class: "x", onclick: f}, "text", child). */
  const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
  /** An SVG element. */
  const svg = (tag, attributes, ...children) =>
    build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // controls -------------------------------------------------------------------------------------------------------------------

  /** A labelled slider. `words(value)` is what the reader sees and hears; `oninput` gets the value. */
  function slider({ label, min, max, step, value, words, oninput }) {
    const id = unique();
    const output = el("output", { for: id });
    const input = el("input", { id, type: "range", min, max, step, value });
    const show = () => {
      output.textContent = words(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      show();
      oninput(Number(input.value));
    });
    show();
    const node = el("div", { class: "live-control" }, el("label", { for: id }, label, " ", output), input);
    return {
      node,
      input,
      get value() {
        return Number(input.value);
      },
      set value(v) {
        input.value = v;
        show();
      },
      /** New limits, value and words, for another meaning of the same slider. */
      become(change) {
        if (change.words) words = change.words;
        for (const name of ["min", "max", "step", "value"]) if (name in change) input[name] = change[name];
        if (change.label) node.firstChild.firstChild.textContent = change.label;
        show();
      },
    };
  }

  /** A labelled choice of [value, text]. */
  function select({ label, options, value, onchange }) {
    const id = unique();
    const input = el("select", { id }, options.map(([v, text]) => el("option", { value: v, selected: v === value }, text)));
    input.addEventListener("change", () => onchange(input.value));
    return { node: el("div", { class: "live-control" }, el("label", { for: id }, label), input), input };
  }

  const button = (text, onclick, more = {}) => el("button", { type: "button", class: "live-button", onclick, ...more }, text);

  /** A line for eyes and screen readers. It waits until the reader's hand rests, so that a drag is not a flood of words, and
   *  is silent until the reader turns to the figure. */
  function status() {
    const node = el("p", { class: "live-status", role: "status", "aria-live": "off" });
    let timer = 0;
    return {
      node,
      say(text, wait = 150) {
        clearTimeout(timer);
        timer = setTimeout(() => (node.textContent = text), wait);
      },
    };
  }

  // a plane ----------------------------------------------------------------------------------------------------------------------

  /** Scales from data to pixels in a drawing of the given size, with room for the axes. */
  function plane({ width, height, x, y, left = 44, right = 10, top = 10, bottom = 40 }) {
    const across = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right);
    const up = (v) => height - bottom - ((v - y[0]) / (y[1] - y[0])) * (height - top - bottom);
    return {
      width, height, left, right, top, bottom, x: across, y: up,
      inverse: (px, py) => [
        x[0] + ((px - left) / (width - left - right)) * (x[1] - x[0]),
        y[0] + ((height - bottom - py) / (height - top - bottom)) * (y[1] - y[0]),
      ],
      path: (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${across(a).toFixed(1)} ${up(b).toFixed(1)}`).join(""),
    };
  }

  /** Axes with ticks [value, text] and names. */
  function axes(p, { xTicks, yTicks, xName, yName }) {
    const g = svg("g", { class: "live-axes" });
    for (const [v, text] of xTicks) {
      g.append(svg("line", { x1: p.x(v), x2: p.x(v), y1: p.top, y2: p.height - p.bottom }));
      g.append(svg("text", { x: p.x(v), y: p.height - p.bottom + 16, "text-anchor": "middle" }, text));
    }
    for (const [v, text] of yTicks) {
      g.append(svg("line", { x1: p.left, x2: p.width - p.right, y1: p.y(v), y2: p.y(v) }));
      g.append(svg("text", { x: p.left - 6, y: p.y(v) + 4, "text-anchor": "end" }, text));
    }
    const middle = (p.top + p.height - p.bottom) / 2;
    g.append(svg("text", { x: (p.left + p.width - p.right) / 2, y: p.height - 6, "text-anchor": "middle" }, xName));
    g.append(svg("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yName));
    return g;
  }

  /** A button that can be dragged over a plane by mouse or finger, and moved by the arrow keys once it has the focus. */
  function handle({ text, move, step = 0.1, ...more }) {
    const node = button(text, null, { ...more, class: `live-handle ${more.class || ""}` });
    const place = (event) => {
      const box = node.parentElement.getBoundingClientRect();
      move({ to: [event.clientX - box.left, event.clientY - box.top] });
    };
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      node.classList.add("live-held");
    });
    node.addEventListener("pointermove", (event) => node.hasPointerCapture(event.pointerId) && place(event));
    for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, () => node.classList.remove("live-held"));
    node.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const size = event.shiftKey ? 5 * step : step;
      move({ by: way.map((w) => w * size) });
    });
    return node;
  }

  // figures in the page ----------------------------------------------------------------------------------------------------------

  /** Whether the reader has asked for less motion. */
  const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  /** A colour of the figures' style sheet, as it is now, in the light or in the dark. */
  const colour = (node, name) => getComputedStyle(node).getPropertyValue(name).trim();

  /** A sequential colour for a share in [0, 1], from the ground to full strength: [r, g, b]. */
  function ramp(node) {
    const rgb = (name) => colour(node, name).match(/\w\w/g).map((part) => parseInt(part, 16));
    const stops = ["--live-ramp-0", "--live-ramp-1", "--live-ramp-2"].map(rgb);
    return (share) => {
      const at = Math.min(1.999, Math.max(0, 2 * share));
      const [low, high] = [stops[Math.floor(at)], stops[Math.floor(at) + 1]];
      return low.map((c, k) => c + (at % 1) * (high[k] - c));
    };
  }

  /** Put a live figure in the place of every still one of that name; `make(stage)` fills it and returns how to draw it. */
  function figure(name, label, make) {
    const place = () => {
      for (const still of document.querySelectorAll(`figure.live-${name}`)) {
        const stage = el("div", { class: "live-stage", role: "group", "aria-label": label });
        still.prepend(stage);
        const draw = make(stage);
        still.classList.add("live-on");
        stage.addEventListener("focusin", () => {
          for (const line of stage.querySelectorAll(".live-status")) line.setAttribute("aria-live", "polite");
        }, { once: true });
        draw();
        let width = stage.clientWidth;
        new ResizeObserver(() => {
          if (stage.clientWidth !== width) draw();
          width = stage.clientWidth;
        }).observe(stage);
        // the theme's switch, and the reader's system where the theme follows it
        new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
      }
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", place);
    else place();
  }

  /** The width that a drawing may take inside a node, at most `most` pixels. */
  function room(node, most) {
    const { paddingLeft, paddingRight } = getComputedStyle(node);
    return Math.max(200, Math.min(most, node.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight)));
  }

  /** A canvas of so many pixels, sharp on fine screens; returns it with its context, in units of CSS pixels. */
  function sheet(canvas, width, height) {
    const fine = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * fine);
    canvas.height = Math.round(height * fine);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(fine, 0, 0, fine, 0, 0);
    return context;
  }

  const minus = (text) => text.replace("-", "\u2212");
  /** A number with so many significant figures, and a power of ten where it is very small or large. */
  function number(v, figures = 3) {
    if (!Number.isFinite(v)) return "∞";
    if (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5)) {
      const [digits, power] = v.toExponential(figures - 1).split("e");
      return `${minus(digits)}·10${superscript(Number(power))}`;
    }
    return minus(String(Number(v.toPrecision(figures))));
  }
  const superscript = (n) => String(n).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));

  Live.ui = { unique, el, svg, slider, select, button, status, plane, axes, handle, calm, colour, ramp, figure, room, sheet, number, minus };
})(window.Live);
