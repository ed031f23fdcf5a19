"use strict";

(() => {
  const POLL_MS = 2000;
  const REFETCH_MS = 300_000; // all points anew: what the server has joined into minutes meanwhile
  const WORDS = { good: "✓ Good", warning: "▲ Warning", critical: "✖ Critical", unknown: "– Too little to judge" };
  // Who has decided, in the order of the table; a source is shown where it has decided anything.
  const SOURCES = {
    redis: "Redis",
    "local-deny": "Memory",
    fallback: "Local fallback",
    open: "Failed open",
    closed: "Failed closed",
    "block-list": "Block list",
  };
  const NAMES = { database: "PostgreSQL", cache: "Redis" };
  const find = (id) => document.getElementById(id);
  let timer = null;
  let allAt = 0;
  let announced = "";

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function shown(value, unit) {
    if (value === null) return "–";
    if (unit === "ms" && value >= 1000) return `${(value / 1000).toFixed(2)} s`;
    const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
    return `${value.toFixed(digits)} ${unit}`;
  }

  // Tiles are made once and changed in place, so that focus and the reading position stay where they are.
  function tile(parent, name, title) {
    let found = parent.querySelector(`[data-name="${CSS.escape(name)}"]`);
    if (!found) {
      found = element("li", "tile");
      found.dataset.name = name;
      found.append(element("h3", "", title));
      for (const part of ["value", "state", "basis", "action"]) found.append(element("p", part));
      parent.append(found);
    }
    return found;
  }

  function fill(item, state, texts) {
    item.dataset.state = state;
    for (const [part, text] of Object.entries(texts)) {
      const paragraph = item.querySelector(`.${part}`);
      if (paragraph.textContent !== text) paragraph.textContent = text;
      paragraph.hidden = !text;
    }
  }

  function showMetric(metric) {
    const isBad = metric.state === "warning" || metric.state === "critical";
    fill(tile(find("key-metrics"), metric.name, metric.title), metric.state, {
      value: shown(metric.value, metric.unit),
      state: WORDS[metric.state],
      basis: `${metric.basis} · warning at ${metric.warning}, critical at ${metric.critical} ${metric.unit}`,
      action: isBad ? `${metric.action} Runbook: ${metric.runbook.replaceAll("-", " ")}.` : "",
    });
  }

  function showService(name, service) {
    const isHealthy = service.status === "healthy", isDegraded = service.status === "degraded";
    const outage = name === "database"
      ? "Requests that need it end as 503. See “the database is down”."
      : "Slower, but correct: everything is read from the database. See “Redis is down”.";
    const action = isDegraded ? "Reading goes on, writes end as 503. See “the database takes no writes”." : outage;
    const state = isHealthy ? "good" : isDegraded ? "warning" : "critical";
    fill(tile(find("services"), name, `${NAMES[name] || name} (${name})`), state, {
      value: isHealthy || isDegraded ? shown(service.responseTime, "ms") : "down",
      state: isHealthy ? "✓ Healthy" : `${isDegraded ? "▲" : "✖"} ${service.error}`,
      basis: "",
      action: isHealthy ? "" : action,
    });
  }

  function showRows(table, rows, columns, nothing) {
    const body = find(table).tBodies[0];
    body.replaceChildren(...rows.map((cells) => {
      const row = element("tr");
      row.append(...cells.map((cell) => {
        const made = element("td");
        made.append(...[cell].flat());
        return made;
      }));
      return row;
    }));
    if (!rows.length) {
      const cell = element("td", "nothing", nothing);
      cell.colSpan = columns;
      const row = element("tr");
      row.append(cell);
      body.append(row);
    }
  }

  function showWorkers(workers) {
    const sources = Object.keys(SOURCES).filter((source) =>
      source === "redis" || workers.some(({ decisions }) => decisions[source]));
    const head = element("tr");
    for (const title of ["Worker", ...sources.map((source) => SOURCES[source]), "Now"]) {
      const cell = element("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    find("workers").tHead.replaceChildren(head);
    showRows("workers", workers.map(({ worker, alone, decisions }) => [
      worker || "the only one",
      ...sources.map((source) => String(decisions[source] || 0)),
      alone ? "without Redis" : "with Redis",
    ]), sources.length + 2, "Nothing was counted yet.");
  }

  // Today a time, else a date with it.
  function until(instant) {
    const end = new Date(instant);
    const isToday = end.toDateString() === new Date().toDateString();
    const time = end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    return isToday ? time : `${end.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
  }

  // A path may be broken after a slash, and nowhere else.
  function pathOf(route) {
    const parts = route.split(/(?<=\/)(?=.)/);
    return parts.flatMap((part, place) => (place ? [element("wbr"), part] : [part]));
  }

  function summarise(answer) {
    const services = Object.entries(answer.services);
    const down = services.filter(([, service]) => service.status === "unhealthy");
    const degraded = services.filter(([, service]) => service.status === "degraded");
    const critical = answer.keyMetrics.filter((metric) => metric.state === "critical");
    const warnings = answer.keyMetrics.filter((metric) => metric.state === "warning");
    const bad = [...down.map(([name]) => `${NAMES[name] || name} is down`), ...critical.map((metric) => metric.title)];
    if (bad.length) return ["critical", `✖ ${bad.join(", ")}`];
    const worrying = [
      ...degraded.map(([name, service]) => `${NAMES[name] || name}: ${service.error}`),
      ...warnings.map((metric) => metric.title),
      ...(answer.metricsFault ? [`Metrics are not shared: ${answer.metricsFault}`] : []),
    ];
    if (worrying.length) return ["warning", `▲ ${worrying.join(", ")}`];
    return ["good", "✓ All is well"];
  }

  function showOverall(state, text) {
    find("overall").dataset.state = state;
    find("overall").textContent = text;
    if (announced !== text) find("announcement").textContent = text.slice(2);
    announced = text;
    document.title = state === "good" ? "Mastery" : `${text} · Mastery`;
  }

  function show(answer) {
    answer.keyMetrics.forEach(showMetric);
    Object.entries(answer.services).forEach(([name, service]) => showService(name, service));
    showRows("routes", answer.slowestRoutes.map((route) => [
      [element("span", "method", route.method), ...pathOf(route.route)],
      String(route.requests),
      shown(route.mean, "ms"),
      shown(route.p95, "ms"),
    ]), 4, "No requests yet.");
    showRows("clients", answer.refusedClients.map((row) => [row.client, String(row.refusals)]), 2, "Nobody was refused.");
    showWorkers(answer.workers);
    showRows("exceptions", [
      ...answer.blocks.map((block) => [block.client, "all", "blocked", until(block.endsAt)]),
      ...answer.overrides.map((override) => [
        override.client,
        override.policy === "*" ? "all" : override.policy,
        override.limit === null ? "exempt" : String(override.limit),
        until(override.endsAt),
      ]),
      ...(answer.services.cache.status === "unhealthy" ? [["Redis is down: blocks can't be listed.", "", "", ""]] : []),
    ], 4, "Every client has the usual limits.");
    showOverall(...summarise(answer));
    find("updated").textContent = `as of ${new Date(answer.timestamp).toLocaleTimeString([], { hourCycle: "h23" })}`;
    find("scope").textContent = answer.machines > 1 ? `all workers of ${answer.machines} machines` : "all workers";
    find("machine").textContent = answer.machine;
    find("about").textContent = `Version ${answer.version} · answered by process ${answer.process} of ${answer.machine}, ` +
      `up for ${(answer.uptime / 3600).toFixed(1)} h`;
  }

  function showSignIn(message) {
    clearTimeout(timer);
    timer = null;
    find("dashboard").hidden = true;
    for (const id of ["overall", "updated", "sign-out"]) find(id).hidden = true;
    find("sign-in").hidden = false;
    find("sign-in-error").textContent = message || "";
    find("email").focus();
  }

  async function poll() {
    clearTimeout(timer);
    timer = null;
    const whole = Date.now() - allAt > REFETCH_MS;
    try {
      const response = await session.get(whole ? "/api/dashboard" : `/api/dashboard?after=${charts.lastTime}`);
      if (response.status === 401 || response.status === 403) {
        await session.end();
        showSignIn(response.status === 401 ? "Please sign in again." : "This account is not an administrator's.");
        return;
      }
      if (!response.ok) throw new Error(String(response.status));
      const answer = await response.json();
      find("sign-in").hidden = true;
      for (const id of ["dashboard", "overall", "updated", "sign-out"]) find(id).hidden = false;
      charts.start(find("charts"));
      show(answer);
      if (whole) {
        charts.replace(answer.history);
        allAt = Date.now();
      } else {
        charts.add(answer.history);
      }
    } catch {
      find("overall").hidden = false;
      showOverall("critical", "✖ The service does not answer");
    }
    if (!document.hidden && session.active) timer = setTimeout(poll, POLL_MS);
  }

  async function open() {
    allAt = 0;
    find("sign-in-error").textContent = "";
    await poll();
    if (session.active) find("main").focus({ preventScroll: true });
  }

  find("password-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    button.disabled = true;
    try {
      await session.signIn(find("email").value, find("password").value);
      find("password").value = "";
      await open();
    } catch (error) {
      find("sign-in-error").textContent = error.message;
    }
    button.disabled = false;
  });

  find("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    session.useToken(find("token").value.trim());
    find("token").value = "";
    open();
  });

  find("sign-out").addEventListener("click", async () => {
    await session.end();
    showSignIn();
  });

  find("ranges").addEventListener("click", (event) => {
    const seconds = event.target.dataset.seconds;
    if (!seconds) return;
    for (const button of find("ranges").children) {
      button.setAttribute("aria-pressed", String(button === event.target));
    }
    charts.show(Number(seconds));
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && session.active && timer === null) poll();
  });

  if (session.active) poll();
  else showSignIn();
})();
