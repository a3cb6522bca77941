"""Longer texts: extend a model's context, judge it at every length, find a needle in a note. See docs/context.md."""
