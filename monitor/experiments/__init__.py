"""Experiments on live traffic: assignment, evidence, decisions and rollouts."""
