"use strict";

// The charts: each a figure with a caption that says the values under the cursor, or else the last ones.
const charts = (() => {
  const HEIGHT = 150;
  const perSecond = (value) => `${round(value)}/s`;
  const milliseconds = (value) => `${round(value)} ms`;
  const count = (value) => String(Math.round(value));
  const DEFINITIONS = [
    { title: "Throughput", format: perSecond, series: [["throughput", "requests"], ["errors", "5xx", 3]] },
    { title: "Response time", format: milliseconds, series: [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]] },
    { title: "Cache hit rate", format: (value) => `${round(value)} %`, series: [["hitRate", "hits"]], range: [0, 100] },
    { title: "Limiter decisions", format: perSecond, series: [["allowed", "allowed"], ["denied", "denied", 3]] },
    { title: "Database pool", format: count, series: [["poolSize", "open"], ["poolInUse", "in use"], ["poolWaiters", "waiting"]] },
    { title: "Event loop lag", format: milliseconds, series: [["loopLag", "mean"]] },
  ];
  const drawn = [];
  let columns = { time: [] };
  let seconds = 600;

  function round(value) {
    return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function dataOf(chart) {
    const now = Date.now() / 1000;
    const first = columns.time.findIndex((time) => time > now - seconds);
    const from = first < 0 ? columns.time.length : first;
    return [columns.time, ...chart.series.map(([name]) => columns[name] || [])].map((column) => column.slice(from));
  }

  function options(chart, width) {
    const axis = {
      stroke: colour("soft"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "mastery" }, y: false, drag: { x: false, y: false } },
      scales: {
        x: { range: () => span(Date.now() / 1000) },
        y: { range: (_plot, _low, high) => chart.range || [0, high > 0 ? high * 1.15 : 1] },
      },
      axes: [
        { ...axis, space: 60, size: 24, values: (_plot, times) => times.map(clock) },
        { ...axis, space: 34, size: 46 },
      ],
      series: [
        {},
        ...chart.series.map(([, label, place], index) => ({
          label,
          stroke: colour(`series-${place || index + 1}`),
          width: 2,
          fill: index === 0 ? `${colour("series-1")}22` : undefined,
          points: { show: true, size: 4, filter: alone },
        })),
      ],
      hooks: { setCursor: [(plot) => caption(chart, plot.cursor.idx)] },
    };
  }

  // The places of values without neighbours, which no line shows: one request at night.
  function alone(plot, place) {
    const values = plot.data[place];
    const places = values.keys();
    return [...places].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);
  }

  // A service that has just started fills its charts with what there is, but for two minutes at the least.
  function span(now) {
    const first = Math.min(columns.time[0] || now, now - 120);
    return [Math.max(first, now - seconds), now];
  }

  function clock(time) {
    return new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  }

  function last(column) {
    for (let index = column.length - 1; index >= 0; index -= 1) {
      if (column[index] !== null) return column[index];
    }
    return null;
  }

  function caption(chart, index) {
    const data = chart.data;
    const values = data.slice(1).map((column) => (index == null ? last(column) : column[index]));
    values.forEach((value, place) => {
      chart.values[place].textContent = value == null ? "–" : chart.format(value);
    });
  }

  function describe(chart) {
    const told = chart.series.map(([, label], index) => {
      const column = chart.data[index + 1].filter((value) => value !== null);
      if (!column.length) return `${label}: nothing yet`;
      return `${label}: now ${chart.format(last(column))}, highest ${chart.format(Math.max(...column))}`;
    });
    chart.box.setAttribute("aria-label", `${chart.title}, last ${seconds / 60} minutes. ${told.join("; ")}.`);
  }

  function build(chart) {
    chart.plot?.destroy();
    chart.data = dataOf(chart);
    chart.plot = new uPlot(options(chart, chart.box.clientWidth), chart.data, chart.box);
  }

  function refresh() {
    for (const chart of drawn) {
      chart.data = dataOf(chart);
      chart.plot.setData(chart.data);
      if (chart.plot.cursor.idx == null) caption(chart, null);
      describe(chart);
    }
  }

  return {
    start(parent) {
      if (drawn.length) return;
      for (const definition of DEFINITIONS) {
        const figure = element("figure", "chart");
        const captionBox = element("figcaption");
        captionBox.append(element("h3", "", definition.title));
        const values = definition.series.map(([, label, place], index) => {
          const key = element("span", `key series-${place || index + 1}`, `${label} `);
          const value = element("b", "", "–");
          key.append(value);
          captionBox.append(key);
          return value;
        });
        const box = element("div", "plot");
        box.setAttribute("role", "img");
        figure.append(captionBox, box);
        parent.append(figure);
        const chart = { ...definition, box, values, plot: null, data: [] };
        build(chart);
        drawn.push(chart);
        new ResizeObserver(() => chart.plot.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
      }
      matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => drawn.forEach(build));
    },

    // The points that came since the last ones.
    add(later) {
      for (const name of Object.keys(later)) columns[name] = (columns[name] || []).concat(later[name]);
      refresh();
    },

    replace(all) {
      columns = all;
      refresh();
    },

    show(newSeconds) {
      seconds = newSeconds;
      refresh();
    },

    get lastTime() {
      return columns.time.at(-1) || 0;
    },
  };
})();
