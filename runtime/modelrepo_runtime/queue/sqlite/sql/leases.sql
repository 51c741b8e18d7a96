-- name: fences_take
update counter set value = value + ? where name = 'fence' returning value;
