"""An invented clinic: one latent case, five kinds of notes, two languages.

Reading order: `condition` (what a disease is, as data), `conditions` (the diseases), `background`, `drugs`, `measures`,
`imaging` and `symptoms` (what all diseases share), `case` (one invented patient), `english` and `chinese` with their
`_pages` (a case written down), `talk_en` and `talk_zh` (a case talked through), `pairs` (questions about what was
written), `corpus` (all of it), `card` (what came out).

Nothing here is taken from a record of a real person, and nothing here is medical advice.
"""
