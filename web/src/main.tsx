import { render } from 'preact';
import { App } from './app';
import './press';
import './style.css';

const into = document.getElementById('app');
if (into) render(<App />, into);
