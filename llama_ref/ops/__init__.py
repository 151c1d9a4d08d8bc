"""The eight operations of a Llama, one file each: pure functions of arrays."""
