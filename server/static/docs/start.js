"use strict";

// validatorUrl: nothing about this service is told to anybody else.
window.SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
});
