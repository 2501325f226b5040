"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plates = [...document.querySelectorAll(".plate")];

  // ---------------------------------------------------------------- colours

  const colour = (token) => {
    const [name, alpha] = token.slice(1).split("/");
    const hex = getComputedStyle(root).getPropertyValue(`--${name}`).trim();
    if (!alpha) return hex;
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${red},${green},${blue},${alpha})`;
  };

  const painted = (value) => {
    if (typeof value === "string") return value[0] === "$" ? colour(value) : value;
    if (Array.isArray(value)) return value.every(Number.isFinite) ? value : value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, painted(each)]));
    }
    return value;
  };

  // ---------------------------------------------------------------- figures

  let library = null;
  const unpacked = () => {
    library ??= (async () => {
      const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
      const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(plain).text();
      document.head.append(script);
      return window.Plotly;
    })();
    return library;
  };

  const LEGEND_ROW = 24;

  const specification = (plate) => JSON.parse(plate.parentElement.querySelector("script").textContent);

  const FACE = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const layout = (given, width, legend) => {
    const ink = colour("$ink"), muted = colour("$muted"), line = colour("$line");
    const axis = (each) => ({
      ...each, title: { ...each.title, standoff: 8, font: { size: 12 } }, linecolor: muted, tickcolor: muted,
      ticks: "outside", ticklen: 4, gridcolor: line, zeroline: false, showline: true, minor: { showgrid: false },
    });
    return {
      ...painted(given),
      xaxis: axis(given.xaxis), yaxis: axis(given.yaxis),
      title: { text: `<b>${given.title.text}</b>`, x: 0, xanchor: "left", xref: "container", y: 1, yanchor: "top",
        yref: "container", pad: { t: 6, l: 4 }, font: { size: 13 } },
      font: { family: FACE, size: 11.5, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 58, r: 10, t: 30 + legend, b: 46 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", font: { size: 11.5 },
        tracegroupgap: 0, itemsizing: "constant" },
      hovermode: "closest",
      hoverlabel: { bgcolor: colour("$soft"), bordercolor: line, font: { family: FACE, color: ink, size: 12 }, align: "left" },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      height: Math.max(300, width * 0.715) + Math.max(legend - LEGEND_ROW, 0),
    };
  };

  const draw = async (plate) => {
    const Plotly = await unpacked();
    const { data, layout: given } = specification(plate);
    const live = plate.querySelector(".live");
    const shown = live.data ? live.data.map((trace) => trace.visible) : [];
    const traces = painted(data).map((trace, at) => (shown[at] === undefined ? trace : { ...trace, visible: shown[at] }));
    const width = plate.clientWidth;
    const drawn = (legend) => Plotly.react(live, traces, layout(given, width, legend), {
      responsive: true, displayModeBar: false,
    });
    await drawn(given.showlegend ? LEGEND_ROW : 0);
    // how many rows the names take is known only now
    const legend = live.querySelector(".legend .bg")?.getBoundingClientRect().height ?? 0;
    if (legend > LEGEND_ROW + 4) await drawn(legend);
    plate.dataset.state = "live";
  };

  const waiting = [];
  let busy = false;
  const work = async () => {
    if (busy) return;
    busy = true;
    while (waiting.length) {
      const plate = waiting.shift();
      try {
        await draw(plate);
      } catch (error) {
        plate.dataset.state = "still"; // the still picture stays: an old browser, say
        console.warn(`figure ${plate.id} stays still: ${error}`);
      }
      await new Promise((resolve) => setTimeout(resolve));
    }
    busy = false;
  };

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      waiting.push(entry.target);
    }
    work();
  }, { rootMargin: "500px 0px" });
  addEventListener("load", () => plates.forEach((plate) => near.observe(plate)));

  const again = () => {
    waiting.push(...plates.filter((plate) => plate.dataset.state === "live"));
    work();
  };
  dark.addEventListener("change", again);
  let last = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === last) return; // a phone's address bar
    last = innerWidth;
    again();
  });

  // ---------------------------------------------------------------- copying and saving

  const copy = async (text, button) => {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  };

  const button = (text, title, act) => {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", textContent: text, title });
    made.addEventListener("click", () => act(made));
    return made;
  };

  const cellText = (cell) => cell.dataset.copy ?? cell.textContent.trim().replace(/\s+/g, " ");
  const tsv = (table) => [...table.rows].map((row) => [...row.cells].map(cellText).join("\t")).join("\n") + "\n";
  for (const table of document.querySelectorAll("table")) {
    const box = table.closest(".box");
    box.prepend(button("Copy", "Copy the table for a spreadsheet", (me) => copy(tsv(table), me)));
  }
  for (const place of document.querySelectorAll("[data-latex]")) {
    place.append(" ", button("LaTeX", "Copy the formula as LaTeX", (me) => copy(place.dataset.latex, me)));
  }

  const column = (values, at) => (values && values[at] !== undefined && values[at] !== null ? values[at] : "");
  const points = (plate) => {
    const { data, layout: given } = specification(plate);
    const lines = [["series", given.xaxis.title.text, given.yaxis.title.text, "below", "above", "value"].join("\t")];
    for (const trace of data) {
      if (trace.hoverinfo === "skip" && trace.fill) continue;
      if (trace.z) {
        trace.y.forEach((y, row) => trace.x.forEach((x, at) =>
          lines.push(["surface", x, y, "", "", trace.z[row][at]].join("\t"))));
        continue;
      }
      const name = trace.name ?? trace.legendgroup ?? (trace.mode === "lines" ? "curve" : "points");
      const kind = trace.mode === "lines" ? `${name} (curve)` : name;
      trace.x.forEach((x, at) => lines.push([kind, x, trace.y[at], column(trace.error_y?.arrayminus, at),
        column(trace.error_y?.array, at), ""].join("\t")));
    }
    return lines.join("\n") + "\n";
  };

  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 5000);
  };

  const svg = (plate) => {
    const drawing = plate.querySelector(".still svg").cloneNode(true);
    const [, , width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
    for (const [key, each] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", width, height })) {
      drawing.setAttribute(key, each);
    }
    drawing.removeAttribute("aria-hidden");
    const text = drawing.outerHTML.replace(/var\(--\w+,\s*([^)]+)\)/g, "$1"); // paper is light
    return { text, width, height };
  };

  const png = (plate) => {
    const { text, width, height } = svg(plate);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: width * 4, height: height * 4 });
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, `${plate.id}.png`));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  };

  for (const plate of plates) {
    plate.parentElement.querySelector("figcaption").append(
      button("Data", "Copy the numbers of this figure for a spreadsheet", (me) => copy(points(plate), me)),
      button("SVG", "Save as SVG", () => save(new Blob([svg(plate).text], { type: "image/svg+xml" }), `${plate.id}.svg`)),
      button("PNG", "Save as PNG", () => png(plate)),
    );
  }

  // ---------------------------------------------------------------- paper, and narrow screens

  const contents = document.querySelector("#contents details");
  const wide = matchMedia("(min-width: 75rem)");
  const fit = () => { contents.open = wide.matches; };
  fit();
  wide.addEventListener("change", fit);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
})();
