"""What a page is: decorators, the annotations they rest on, and the checked graph they make."""
