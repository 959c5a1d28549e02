import { render } from 'preact';
import { App } from './app';
import './style.css';

const into = document.getElementById('app');
if (into) render(<App />, into);
