"""What keeps the project itself in order: pages made from code, checks of its files. No part of the product."""
