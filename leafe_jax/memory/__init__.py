"""Lessons in words that outlive an episode: rules, their edits, their books."""
