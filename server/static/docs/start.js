"use strict";

(() => {
  // The library's own dark mode, as the system prefers it.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const showScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", showScheme);
  showScheme();

  // Within the button that opens an operation, its path is text: a link there could not be reached.
  const plainPaths = () => ({
    wrapComponents: {
      DeepLink: (_original, { React }) => ({ text }) => React.createElement("span", { className: "nostyle" }, text),
    },
  });

  // Landmarks: the introduction is one, and a table of responses is a table.
  const root = document.getElementById("documentation");
  new MutationObserver(() => {
    for (const table of root.querySelectorAll("table[role=region]")) table.removeAttribute("role");
    const about = root.querySelector(".information-container:not([role])");
    if (about && !about.closest("[role=region]")) {
      about.setAttribute("role", "region");
      about.setAttribute("aria-label", "Introduction");
    }
  }).observe(root, { childList: true, subtree: true });

  // validatorUrl: nothing about this service is told to anybody else.
  window.SwaggerUIBundle({
    url: "/api/openapi.json",
    dom_id: "#documentation",
    deepLinking: true,
    docExpansion: "list",
    validatorUrl: null,
    plugins: [plainPaths],
  });
})();
