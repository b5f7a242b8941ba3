"""A store looked after: whether it is whole, what it holds, and what nobody needs."""
