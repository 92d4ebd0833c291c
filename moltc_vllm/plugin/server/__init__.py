"""HTTP server: routes, middleware, renderer, adapters per task and the server process."""
