"""Tokenizers and transcripts: how an episode becomes token ids, once."""
