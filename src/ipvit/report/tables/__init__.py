"""Tables: what people see of them, and the files and the terminal that they are written to."""
