-- Until the transaction ends, joins are made by hashing or sorting. Before import_cards: the planner can't know how many
-- cards a file has and, for a deck that was filled a moment ago, does not know its cards yet; a nested loop over ten
-- thousand of each is a hundred million steps. No parameters.
SELECT set_config('enable_nestloop', 'off', true) AS enable_nestloop
