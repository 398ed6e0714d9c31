"""The text stage: prompts to prompt embeds."""
