"""Steps of a diffusion model shared by explaining and editing: clips, windows, noise schedule, noised latents.

A clip enters as audio, and its latents, noised or inverted, leave. May import `attnviz.audio`, `attnviz.capture`,
`attnviz.models` and `attnviz.models.pipelines`.
"""
