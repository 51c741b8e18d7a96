-- name: beats_move
update beat set number = number + 1, at = ?1 where session in (select value from json_each(?2)) returning session;
