"""The JSON that commands write, as types with a meaning for every field; docs/json.md is made from them."""
