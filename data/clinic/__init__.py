"""An invented clinic: one latent case, five kinds of notes, two languages.

Reading order: `condition` (what a disease is, as data), `conditions_*` (the diseases), `background`, `drugs`, `measures`
and `symptoms` (what all diseases share), `case` (one invented patient), `english` and `chinese` (a case written down),
`talk_en` and `talk_zh` (a case talked through), `pairs` (questions about what was written), `card` (what came out).

Nothing here is taken from a record of a real person, and nothing here is medical advice.
"""
