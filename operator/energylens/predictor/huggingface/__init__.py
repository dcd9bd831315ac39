"""From a model's Hugging Face config.json to its architecture."""
