"""What a person looks at: tables on the terminal, figures, and one self-contained page."""
