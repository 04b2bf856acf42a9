"""Further views of the same game: in numbers, for one side, in turn order, as chat."""
