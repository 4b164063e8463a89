"""OpenAI's endpoints, answered as llama-server answers them."""
