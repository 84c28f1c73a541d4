"""Serve: mixtures behind an OpenAI-compatible HTTP server.

`mop.serve.app.create_app` makes the application from mixtures and upstreams that are at hand; `mop.serve.loading`
makes those from files and addresses, `mop.serve.process` runs it. Needs the extra ``serve`` (starlette, uvicorn,
prometheus-client).
"""
