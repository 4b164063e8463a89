"""A server that speaks OpenAI's, Anthropic's and llama-server's HTTP APIs.

``jobs`` says what one sequence is to do and what is heard of it, ``scheduler`` runs them; the rest
is HTTP. Starlette, uvicorn and pydantic are imported here alone.
"""
