"""The port ``Models`` over any endpoint that speaks OpenAI's protocol."""
