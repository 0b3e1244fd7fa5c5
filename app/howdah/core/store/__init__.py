"""What is stored: one module per noun, one method per query file."""
