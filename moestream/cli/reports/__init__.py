"""What commands tell: words for a person, numbers for JSON."""
