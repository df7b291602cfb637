"""Heads on cached vectors: what to train (spec), on what (split), with which engine (train), and how it went (run)."""
